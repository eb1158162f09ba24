import numpy as np

from mlpserve_trainer.fitting.batch_loader import batches


def test_the_last_batch_is_the_remainder() -> None:
    order = np.random.default_rng(1).permutation(10)
    cut = list(batches(order, 4))
    assert [len(rows) for rows in cut] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(cut), order)
