"""The forms in which datasets lie on people's disks, one file each; `data/datasets.py` says which are looked for, in which order."""
