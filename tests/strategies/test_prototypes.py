import torch

from fewshot_nsl.strategies.prototypes import class_means, squared_distances


def test_means_are_of_the_members_of_each_class_however_many_they_are() -> None:
    features = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([[0, 1, 1, 0, 1], [2, 1, 0, 2, 2]])
    for task, way in ((0, 2), (1, 3)):
        means = class_means(features[task : task + 1], labels[task : task + 1])
        expected = torch.stack([features[task, labels[task] == each].mean(0) for each in range(way)])
        torch.testing.assert_close(means[0], expected)


def test_distances_are_sums_of_squares() -> None:
    random = torch.Generator().manual_seed(1)
    query, means = (torch.randn(2, n, 4, generator=random, dtype=torch.float64) for n in (5, 3))
    expected = [[[sum((float(a) - float(b)) ** 2 for a, b in zip(q, m, strict=True)) for m in means[t]] for q in query[t]] for t in (0, 1)]
    torch.testing.assert_close(squared_distances(query, means), torch.tensor(expected, dtype=torch.float64))
