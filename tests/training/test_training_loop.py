"""The loop against a plain one written out, and its promises one by one."""

from __future__ import annotations

import copy
import math
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toy_training import Net, Rows, squared, toy_spec, train

from monge.errors import Diverged, UserError
from monge.objectives.base import Batch, Loss
from monge.training import drawing, engine, journal, loop, progress
from monge.training.ema import Average, decay_at
from monge.training.loop import fit
from monge.training.schedule import learning_rate


def plain_loop(steps: int, bad: tuple[int, ...] = ()) -> tuple[nn.Module, nn.Module]:
    """What `train(float64, clip=0.5, weight_decay=0.1, ema=0.8)` must compute."""
    net = Net().double()
    average = copy.deepcopy(net)
    optimizer = torch.optim.AdamW(net.parameters(), betas=(0.9, 0.99), weight_decay=0.1)
    batches = Rows()
    for n in range(steps):
        if n not in bad:
            x, y = (batches.draw(n)[key].double() for key in ("x", "y"))
            (net(x) - y).square().sum(1).mean().backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            warm = (n + 1) / 3 if n < 3 else 0.5 * (1 + math.cos(math.pi * (n - 3) / (steps - 3)))
            optimizer.param_groups[0]["lr"] = 0.05 * warm
            optimizer.step()
            optimizer.zero_grad()
        decay = min(0.8, (1 + n) / (10 + n))
        with torch.no_grad():
            for ours, theirs in zip(average.parameters(), net.parameters(), strict=True):
                ours.copy_(decay * ours + (1 - decay) * theirs)
    return net, average


PLAIN = {"precision": "float64", "clip": 0.5, "weight_decay": 0.1, "ema": 0.8, "steps": 20}


def assert_close(ours: nn.Module, theirs: nn.Module, tolerance: float = 1e-12) -> None:
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (a - b).abs().max() <= tolerance, name


@pytest.mark.parametrize("micro_batch", [None, 12, 5, 1])
def test_any_micro_batch_computes_what_a_plain_loop_does(micro_batch: int | None) -> None:
    fitted = train(micro_batch=micro_batch, **PLAIN)
    net, average = plain_loop(20)
    assert_close(fitted.network, net)
    assert_close(fitted.ema, average)
    assert (fitted.step, fitted.steps, fitted.skipped) == (20, 20, 0)


def test_a_bad_step_is_skipped_and_counted() -> None:
    fitted = train(batches=Rows(bad=(4, 5, 11)), **PLAIN)
    net, average = plain_loop(20, bad=(4, 5, 11))
    assert_close(fitted.network, net)
    assert_close(fitted.ema, average)
    assert fitted.skipped == 3


def test_a_bad_gradient_of_a_good_loss_is_skipped() -> None:
    def rooted(net: nn.Module, batch: Batch) -> Loss:
        error = squared(net, batch).per_example
        return Loss(error + (0 * error).sqrt())  # the root's slope at 0 is infinite, times 0

    before = Net()
    fitted = fit(Net(), rooted, Rows(), toy_spec(steps=3), quiet=True)
    assert_close(fitted.network, before, 0.0)
    assert fitted.skipped == 3


def test_bad_steps_in_a_row_end_the_run_and_leave_the_checkpoint(tmp_path: Path) -> None:
    bad = tuple(range(5, 40))
    with pytest.raises(Diverged, match=r"10 steps in a row.*step 15.*learning rate"):
        train(tmp_path, batches=Rows(bad=bad), steps=40, save_every=4)
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["step-00000012"]
    assert [row["skipped"] for row in journal.read(tmp_path / "log.jsonl")][-1] == 9
    assert journal.read(tmp_path / "log.jsonl")[-1]["loss"] is None
    train(batches=Rows(bad=(*range(2, 11), *range(12, 21))), steps=30)  # nine, a good one, nine


def test_the_log_holds_means_since_the_last_line(tmp_path: Path) -> None:
    seen: list[tuple[float, float]] = []

    def spying(net: nn.Module, batch: Batch) -> Loss:
        loss = squared(net, batch)
        seen.append((loss.per_example.mean().item(), loss.parts["error"].mean().item()))
        return loss

    spec = toy_spec(steps=7, log_every=3, schedule="constant")
    fit(Net(), spying, Rows(bad=(1,)), spec, folder=tmp_path, quiet=True)
    seen = seen[-7:]
    log = journal.read(tmp_path / "log.jsonl")
    assert [row["step"] for row in log] == [3, 6, 7]
    assert [row["skipped"] for row in log] == [1, 1, 1]
    for row, steps in zip(log, ([0, 2], [3, 4, 5], [6]), strict=True):
        losses, errors = zip(*(seen[n] for n in steps), strict=True)
        assert row["loss"] == pytest.approx(sum(losses) / len(steps))
        assert row["parts"] == {"error": pytest.approx(sum(errors) / len(steps))}
        assert row["grad_norm"] > 0
        assert row["wall"]["seconds"] >= 0
    assert [row["lr"] for row in log] == pytest.approx([0.05, 0.05, 0.05])


def test_schedule() -> None:
    def rates(schedule: str) -> list[float]:
        return [learning_rate(n, 2.0, warmup=4, steps=8, schedule=schedule) for n in range(8)]

    warm = [0.5, 1.0, 1.5, 2.0]
    assert rates("constant") == pytest.approx([*warm, 2, 2, 2, 2])
    half = math.sqrt(0.5)
    assert rates("cosine") == pytest.approx([*warm, 2, 1 + half, 1, 1 - half])
    assert learning_rate(0, 2.0, warmup=0, steps=1) == 2.0
    assert learning_rate(9, 2.0, warmup=20, steps=10) == 1.0


def test_average_forgets_the_first_weights_and_copies_buffers() -> None:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1, affine=False))
    weight = net[0].weight
    weight.data.fill_(0.0)
    average = Average(net, 0.5)
    for n, value in enumerate([1.0, 2.0, 3.0]):
        weight.data.fill_(value)
        net[1].running_mean.fill_(value)
        average.update(n)
    # decays 1/10, 2/11, 3/12; then 0.5 from step 8 on
    expected = 0.25 * (2 / 11 * 0.9 + 9 / 11 * 2) + 0.75 * 3
    seen = average.look()
    assert float(seen[0].weight) == pytest.approx(expected)
    assert float(seen[1].running_mean) == 3.0
    assert not seen.training and not any(p.requires_grad for p in seen.parameters())
    assert [decay_at(n, 0.5) for n in (0, 8, 9, 1000)] == [0.1, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("fits", [5, 1])
def test_out_of_memory_halves_the_micro_batch_and_changes_nothing_else(
    fits: int, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes: list[int] = []

    def hungry(net: nn.Module, batch: Batch) -> Loss:
        sizes.append(len(batch["x"]))
        if len(batch["x"]) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return squared(net, batch)

    fitted = fit(Net(), hungry, Rows(), toy_spec(**PLAIN))
    assert_close(fitted.network, plain_loop(20)[0])
    assert fitted.plan is not None
    assert fitted.plan.micro_batch == {5: 3, 1: 1}[fits]
    assert sizes[: len(sizes) // 20].count(12) == 1  # found once, before the run
    assert "out of memory: going on with micro-batches of" in capsys.readouterr().err


def test_out_of_memory_in_the_middle_of_a_step_redoes_the_step() -> None:
    calls = iter(range(10_000))

    def hungry(net: nn.Module, batch: Batch) -> Loss:
        if next(calls) == 30 and len(batch["x"]) == 12:
            squared(net, batch).per_example.sum().backward()  # half done
            raise torch.OutOfMemoryError("CUDA out of memory")
        return squared(net, batch)

    assert_close(fit(Net(), hungry, Rows(), toy_spec(**PLAIN)).network, plain_loop(20)[0])


@pytest.mark.parametrize(("micro_batch", "least"), [(None, 1), (12, 12)])
def test_out_of_memory_for_good_is_said(micro_batch: int | None, least: int) -> None:
    def starving(net: nn.Module, batch: Batch) -> Loss:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    with pytest.raises(UserError, match=f"micro-batches of {least} rows .CUDA out of memory"):
        fit(Net(), starving, Rows(), toy_spec(micro_batch=micro_batch), quiet=True)


def test_a_smaller_micro_batch_is_kept_by_a_resumed_run(tmp_path: Path) -> None:
    limit = 3

    def hungry(net: nn.Module, batch: Batch) -> Loss:
        if len(batch["x"]) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return squared(net, batch)

    fit(Net(), hungry, Rows(), toy_spec(steps=3), folder=tmp_path, quiet=True)
    limit = 100
    fitted = fit(Net(), hungry, Rows(), toy_spec(steps=6), folder=tmp_path, quiet=True)
    assert fitted.plan is not None and fitted.plan.micro_batch == 3


def test_what_the_network_draws_depends_on_seed_and_step_alone() -> None:
    def disturb(ema: nn.Module, step: int) -> None:
        torch.randn(5)

    quiet = train(dropout=0.3)
    net, state = Net(dropout=0.3), torch.random.get_rng_state()
    disturbed = train(net=net, on_sample=disturb, sample_every=2)
    assert torch.equal(state, torch.random.get_rng_state())
    assert_close(quiet.network, disturbed.network, 0.0)
    other = train(dropout=0.3, seed=1)
    assert not torch.equal(quiet.network.inner.weight, other.network.inner.weight)


def test_samples_are_taken_from_the_average_at_intervals_and_at_the_end() -> None:
    seen: list[tuple[int, Tensor]] = []

    def look(ema: nn.Module, step: int) -> None:
        assert not ema.training
        seen.append((step, ema.get_parameter("inner.weight").clone()))

    fitted = train(steps=8, sample_every=3, on_sample=look)
    assert [step for step, _ in seen] == [3, 6, 8]
    assert torch.equal(seen[-1][1], fitted.ema.get_parameter("inner.weight"))
    assert not torch.equal(seen[-1][1], fitted.network.get_parameter("inner.weight"))
    train(steps=3, on_sample=lambda *_: pytest.fail("not asked for"))


def test_timed_steps_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    from monge.training import plan

    few = train(dropout=0.3)
    monkeypatch.setattr(plan, "TIMED_STEPS", 9)
    many = train(dropout=0.3)
    assert_close(few.network, many.network, 0.0)
    assert_close(few.ema, many.ema, 0.0)
    assert int(few.network.steps) == int(many.network.steps) == 12


def test_dry_run_says_what_a_run_takes_and_leaves_everything_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, home = Net(), tmp_path / "not there"
    fitted = fit(net, squared, Rows(), toy_spec(steps=1000, dry_run=True), folder=home)
    said = capsys.readouterr().err
    for words in ("steps/s", "samples/s", "steps 0 to 1000", "memory:", "disk:", "free"):
        assert words in said
    assert not home.exists()
    assert_close(net, Net(), 0.0)
    plan = fitted.plan
    assert (fitted.step, fitted.steps) == (0, 1000) and plan is not None
    assert plan.seconds == pytest.approx(1000 * plan.step_s)
    train(home, steps=4)
    files = {p: p.stat().st_mtime_ns for p in home.rglob("*")}
    on_disk = sum(p.stat().st_size for p in (home / "state").rglob("*.safetensors"))
    assert train(home, steps=9, dry_run=True).step == 4
    assert files == {p: p.stat().st_mtime_ns for p in home.rglob("*")}
    assert plan.checkpoint_bytes == pytest.approx(on_disk, abs=4096)  # but for the headers


def test_minutes_become_steps_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from monge.training import plan

    monkeypatch.setattr(plan, "_time_steps", lambda *_: 0.5)
    fitted = train(tmp_path / "a", steps=None, minutes=0.1)
    assert (fitted.steps, fitted.step) == (12, 12)
    assert_close(fitted.network, train(steps=12).network, 0.0)

    def interrupt(ema: nn.Module, step: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "LOOK_PART", 0.0)
    monkeypatch.setattr(loop, "make_again", lambda *_: None)  # the plan is good enough
    half = {"steps": None, "minutes": 0.1, "save_every": 3}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", on_sample=interrupt, sample_every=8, **half)
    monkeypatch.setattr(plan, "_time_steps", lambda *_: 0.1)  # a faster moment changes nothing
    again = train(tmp_path / "b", **half)
    assert (again.steps, again.step) == (12, 12)
    assert_close(again.network, fitted.network, 0.0)


def test_steps_and_minutes_end_at_whichever_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monge.training.plan._time_steps", lambda *_: 1.0)
    assert train(tmp_path / "a", steps=4, minutes=0.1).steps == 4
    assert train(tmp_path / "b", steps=40, minutes=0.1).steps == 6
    assert train(tmp_path / "b", steps=40, minutes=0.1).plan is None
    assert train(tmp_path / "a", steps=5, minutes=0.1).steps == 5


def test_longer_minutes_add_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from monge.training import plan

    monkeypatch.setattr(plan, "_time_steps", lambda *_: 0.5)
    first = train(tmp_path, steps=None, minutes=0.1)
    assert first.step == 12
    assert train(tmp_path, steps=None, minutes=0.1).plan is None
    longer = train(tmp_path, steps=None, minutes=0.2)
    assert longer.step == 12 + int((12 - first.seconds) / 0.5)


def test_a_finished_run_returns_its_network_and_more_steps_go_on(tmp_path: Path) -> None:
    first = train(tmp_path, steps=6, schedule="constant")
    untouched = (tmp_path / "log.jsonl").stat().st_mtime_ns
    again = train(tmp_path, steps=6, schedule="constant")
    assert again.plan is None
    assert_close(again.network, first.network, 0.0)
    assert_close(again.ema, first.ema, 0.0)
    assert (tmp_path / "log.jsonl").stat().st_mtime_ns == untouched
    longer = train(tmp_path, steps=12, schedule="constant")
    assert longer.step == 12
    assert_close(longer.network, train(schedule="constant").network, 0.0)


@pytest.mark.slow
def test_compiled_is_eager_up_to_rounding() -> None:
    compiled = fit(Net(), squared, Rows(), toy_spec(**PLAIN, compile="on"), quiet=True)
    assert_close(compiled.network, plain_loop(20)[0], 1e-10)


def test_bf16_is_autocast_inside_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes: set[torch.dtype] = set()

    def spying(net: nn.Module, batch: Batch) -> Loss:
        dtypes.add(net(batch["x"]).dtype)
        return squared(net, batch)

    exact = train().network
    bf16 = torch.autocast("cpu", torch.bfloat16)
    monkeypatch.setattr(engine, "autocast_of", lambda *_: bf16)
    fitted = fit(Net(), spying, Rows(), toy_spec(), quiet=True)
    assert dtypes == {torch.bfloat16}
    assert fitted.network.inner.weight.dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")
    assert_close(fitted.network, exact, 0.1)
    assert not torch.equal(fitted.network.inner.weight, exact.inner.weight)


def test_whole_numbers_are_not_cast_and_unused_parameters_do_not_matter() -> None:
    class Idle(Net):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Linear(2, 2)

    def looking(net: nn.Module, batch: Batch) -> Loss:
        assert batch["label"].dtype == torch.int64
        assert batch["x"].dtype == torch.float64
        return squared(net, batch)

    fitted = fit(Idle(), looking, Rows(), toy_spec(**PLAIN), quiet=True)
    assert_close(fitted.network.inner, plain_loop(20)[0].inner)


def test_tied_and_frozen_weights(tmp_path: Path) -> None:
    class Tied(Net):
        def __init__(self) -> None:
            super().__init__()
            self.twin = self.inner
            self.outer.bias.requires_grad_(False)

    def run(folder: Path, steps: int) -> nn.Module:
        spec = toy_spec(steps=steps, schedule="constant")
        return fit(Tied(), squared, Rows(), spec, folder=folder, quiet=True).network

    run(tmp_path / "a", 5)
    assert_close(run(tmp_path / "a", 9), run(tmp_path / "b", 9), 0.0)
    assert torch.equal(run(tmp_path / "a", 9).outer.bias, Net().outer.bias)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, "needs steps or minutes"),
        ({"steps": 0}, "steps must be greater than 0, not 0"),
        ({"lr": -1.0}, "lr must be greater than 0"),
        ({"clip": 0.0}, "clip must be greater than 0"),
        ({"log_every": 0}, "log_every must be greater than 0"),
        ({"ema": 1.5}, "ema must be between 0 and 1"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"warmup": -1}, "warmup"),
        ({"device": "tpu"}, "device 'tpu' is not available here: use auto, .*cpu"),
        ({"precision": "bf16"}, "bf16 is not supported on cpu"),
    ],
    ids=str,
)
def test_impossible_settings(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(**changes)


def test_a_network_with_nothing_to_train() -> None:
    with pytest.raises(UserError, match="Identity has no parameters to train"):
        train(net=nn.Identity())


def test_a_loss_or_a_batch_of_the_wrong_shape_is_a_defect() -> None:
    def mean(net: nn.Module, batch: Batch) -> Loss:
        return Loss(squared(net, batch).per_example.mean())

    with pytest.raises(ValueError, match="one number for each row"):
        fit(Net(), mean, Rows(), toy_spec(), quiet=True)
    short = Rows()
    short.size = 13
    short.draw = Rows().draw
    with pytest.raises(ValueError, match="batches have 13 rows"):
        train(batches=short)


def test_batches_are_drawn_ahead_in_order_and_not_past_the_end() -> None:
    drawn: list[int] = []

    class Noting(Rows):
        def draw(self, step: int) -> Batch:
            drawn.append(step)
            return super().draw(step)

    batches = Noting()
    with drawing.drawing(batches, 7, torch.device("cuda")) as draw:
        for n in (4, 5, 6):
            assert torch.equal(draw(n)["x"], Rows().draw(n)["x"])
    assert drawn == [4, 5, 6]


@pytest.mark.parametrize("several", [3, 1], ids=["blocks", "plans"])
def test_what_is_planned_is_drawn_ahead_on_a_cpu_and_is_the_same(
    several: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "cores", lambda: torch.get_num_threads() + 1)
    begun = threading.Event()

    class Blocks(Rows):
        span = several
        plans = True

        def draw(self, step: int) -> Batch:
            if step == several:
                begun.set()
            return super().draw(step)

    with drawing.drawing(Blocks(), 7, torch.device("cpu")) as draw:
        first = draw(0)
        assert begun.wait(10)  # the next block, long before its first step is asked for
        drawn = [first, *(draw(n) for n in range(1, 7))]
    for n, batch in enumerate(drawn):
        assert torch.equal(batch["x"], Rows().draw(n)["x"])
    ahead, plain = train(batches=Blocks()), train()
    for ours, theirs in zip(ahead.ema.parameters(), plain.ema.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_nothing_is_planned_ahead_where_the_step_has_all_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drawing, "cores", torch.get_num_threads)
    threads: set[str] = set()

    class Planned(Rows):
        plans = True

        def draw(self, step: int) -> Batch:
            threads.add(threading.current_thread().name)
            return super().draw(step)

    train(batches=Planned())
    assert threads == {threading.main_thread().name}
    assert drawing.cores() >= 1


def test_progress_is_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fit(Net(), squared, Rows(), toy_spec())
    out, err = capsys.readouterr()
    assert out == ""
    last = err.strip().splitlines()[-1]
    for words in ("step 12/12", "loss", "grad_norm", "steps/s", "samples/s", "ETA 0:00"):
        assert words in last
    assert "\x1b" not in err
    train()
    assert capsys.readouterr() == ("", "")


def test_progress_is_one_live_line_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setattr(progress, "TERMINAL_EVERY_S", 0.0)
    fit(Net(), squared, Rows(), toy_spec())
    err = capsys.readouterr().err
    assert "step 7/12" in err and "step 12/12" in err
    assert err.count("\x1b[?25l") == err.count("\x1b[?25h") == 1  # the cursor is back
