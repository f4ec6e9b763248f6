import torch

from fewshot_nsl.bench import MetaWork, made_up_batch
from fewshot_nsl.bench.peers import float_tasks


def test_tasks_are_those_of_the_batch_with_images_from_minus_one_to_one() -> None:
    batch = made_up_batch(MetaWork(image_size=16, tasks=2, n_way=2, n_shot=1, n_query=3), torch.device("cpu"))
    tasks = float_tasks(batch)
    assert len(tasks) == 2
    for number, task in enumerate(tasks):
        assert torch.equal(((task.support + 1) * 127.5).round().to(torch.uint8), batch.support[number])
        assert torch.equal(((task.query + 1) * 127.5).round().to(torch.uint8), batch.query[number])
        assert torch.equal(task.query_labels, batch.query_labels[number])
        assert task.query.is_contiguous()
    assert float_tasks(batch, torch.float64)[0].query.dtype == torch.float64
