import pytest
import torch

from seqref.tasks import Adding


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("time", [2, 3, 10, 11])
def test_marks_numbers_and_sums(time):
    x, sums = Adding(time).draw(400, generator())
    assert x.shape == (400, time, 2)
    assert sums.shape == (400,)
    numbers, marks = x.unbind(-1)
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert ((marks == 0) | (marks == 1)).all()
    half = time // 2
    assert (marks[:, :half].sum(1) == 1).all()
    assert (marks[:, half:].sum(1) == 1).all()
    torch.testing.assert_close(sums, (numbers * marks).sum(1))
    # Every place is marked some time.
    assert (marks.sum(0) > 0).all()


def test_the_marks_are_uniform_in_each_half_and_independent_of_the_numbers():
    x, _ = Adding(5).draw(30_000, generator())
    numbers, marks = x.unbind(-1)
    expected = torch.tensor([1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3])
    torch.testing.assert_close(marks.mean(0), expected, atol=0.015, rtol=0)
    both = (marks[:, 0] * marks[:, 4]).mean().item()
    assert both == pytest.approx(1 / 6, abs=0.011)
    assert numbers[marks == 1].mean().item() == pytest.approx(0.5, abs=0.008)
    assert numbers.var().item() == pytest.approx(1 / 12, abs=0.002)


def test_the_constant_answer_has_an_error_of_one_sixth():
    task = Adding(20)
    _, sums = task.draw(200_000, generator(), dtype=torch.float64)
    error = (sums - 1).square()
    assert task.constant_mse == 1 / 6
    # The error has a standard deviation of 0.197; five standard errors.
    assert error.mean().item() == pytest.approx(task.constant_mse, abs=0.0022)
    assert abs(error.mean().item() - 0.1767) > 0.005
    assert (sums - 0.9).square().mean() > error.mean() + 0.005


@pytest.mark.parametrize("time", [2, 3, 8])
def test_the_last_step_alone_gives_the_memoryless_error(time):
    task = Adding(time)
    x, sums = task.draw(200_000, generator(), dtype=torch.float64)
    number, mark = x[:, -1].unbind(-1)
    # The conditional mean given the last step is the best answer there is.
    answer = torch.where(mark == 1, number + 0.5, 1.0)
    error = (sums - answer).square().mean().item()
    assert error == pytest.approx(task.memoryless_mse, abs=0.002)
    assert task.half_mse <= task.memoryless_mse < task.constant_mse
    # No answer that is linear in number, mark and product does better.
    features = torch.stack([torch.ones_like(mark), mark, number, number * mark], 1)
    fit = torch.linalg.lstsq(features, sums[:, None], driver="gelsd").solution[:, 0]
    least = (sums - features @ fit).square().mean().item()
    assert least == pytest.approx(error, abs=1e-4)


def test_one_known_number_leaves_one_twelfth():
    task = Adding(12)
    x, sums = task.draw(200_000, generator(), dtype=torch.float64)
    late = x[:, 6:].prod(-1).sum(1)
    error = (sums - late - 0.5).square().mean().item()
    assert error == pytest.approx(task.half_mse, abs=0.001)


def test_two_steps_are_all_marked():
    task = Adding(2)
    x, sums = task.draw(50, generator())
    assert (x[..., 1] == 1).all()
    assert torch.equal(sums, x[:, 0, 0] + x[:, 1, 0])
    assert task.memoryless_mse == pytest.approx(1 / 12, abs=1e-15)


def test_a_seed_gives_the_same_sequences_in_every_dtype():
    x, sums = Adding(9).draw(6, generator(2))
    again, wide = Adding(9).draw(6, generator(2), dtype=torch.float64, device="cpu")
    assert again.dtype == wide.dtype == torch.float64
    assert torch.equal(again.float(), x)
    torch.testing.assert_close(wide.float(), sums, atol=1e-6, rtol=0)
    assert not torch.equal(Adding(9).draw(6, generator(3)).x, x)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: Adding(1), ValueError, "^Adding: `time` must be at least 2, got 1"),
        (lambda: Adding(True), TypeError, "`time` must be an int, got bool"),
        (lambda: Adding(4).draw(0), ValueError, r"^Adding\.draw: `batch_size` must be"),
        (lambda: Adding(4).draw(2, "0"), TypeError, r"Generator or None, got str"),
        (lambda: Adding(4).draw(2, dtype=torch.bool), TypeError, "floating dtype, got"),
    ],
)
def test_refuses(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
