"""The compiled kernels against PyTorch's operations, in float64 where sums are concerned."""

from __future__ import annotations

import copy
import threading

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("numba")

from mirilla.kernels.threads import ThreadPool, chunks  # noqa: E402
from mirilla.model import fused  # noqa: E402
from mirilla.model.conv import ConvBatchNormRelu6  # noqa: E402
from mirilla.model.initializers import initialise  # noqa: E402
from mirilla.model.layers import Layer  # noqa: E402
from mirilla.model.network import SsdNetwork  # noqa: E402
from mirilla.model.spec import ModelSpec  # noqa: E402


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def layer(kind, inner, outer, stride, height, width, seed=0):
    out = (-(-height // stride), -(-width // stride))
    entry = Layer(
        "x",
        "depthwise" if kind == "depthwise" else "conv",
        1 if kind == "pointwise" else 3,
        stride,
        inner,
        outer,
        "",
        *out,
        True,
    )
    made = ConvBatchNormRelu6(entry, height, width, 0.001)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter, spread, middle in ((made.weight, 0.3, 0.0), (made.gamma, 0.3, 1.0), (made.beta, 1.0, 1.0)):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread + middle)
    made.momentum = 0.25
    return made


def both(layers, x, gradient_of_input=False):
    """Output, gradients and moving statistics of the layers: fused, and one by one in float64."""
    results = []
    for double in (False, True):
        mine = torch.nn.ModuleList(copy.deepcopy(layers)).train()
        if double:
            mine = mine.double()
        value = (x.double() if double else x).clone().requires_grad_(gradient_of_input)
        result = value
        if double:
            for module in mine:
                result = module(result)
        else:
            result = fused.run_together(list(mine), value)
        weights = torch.linspace(-1, 2, result.numel(), dtype=result.dtype).sin().reshape(result.shape)
        (result * weights).sum().backward()
        tensors = {"result": result.detach()}
        if gradient_of_input:
            tensors["input"] = value.grad
        for i, module in enumerate(mine):
            tensors |= {f"{i}.{n}": p.grad for n, p in module.named_parameters()} | {
                f"{i}.{n}": b for n, b in module.named_buffers()
            }
        results.append(tensors)
    return results


def check(got, want, share=2e-4):
    for name, tensor in want.items():
        difference = (got[name].double() - tensor).norm()
        assert difference <= share * tensor.norm() + 1e-4, (name, float(difference), float(tensor.norm()))


def picture(batch, channels, height, width, seed=1):
    x = torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 5), (1, 1), (2, 9)])
@pytest.mark.parametrize("channels", [16, 48])
def test_depthwise(threads, channels, height, width, stride):
    layers = [layer("depthwise", channels, channels, stride, height, width)]
    x = picture(3, channels, height, width).mul(2).add(2).clamp(0, 6)
    got, want = both(layers, x, True)
    want["input"] = want["input"] * ((x > 0) & (x < 6))  # the ReLU6 that x came from would stop the rest
    check(got, want)


@pytest.mark.parametrize(("inner", "outer"), [(16, 16), (16, 32), (64, 128), (256, 16)])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (3, 7), (1, 1)])
def test_pointwise(threads, inner, outer, height, width):
    x = picture(5, inner, height, width).mul(2).add(2).clamp(0, 6)
    got, want = both([layer("pointwise", inner, outer, 1, height, width)], x, True)
    want["input"] = want["input"] * ((x > 0) & (x < 6))
    check(got, want)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 13), (2, 3)])
@pytest.mark.parametrize("channels", [16, 32])
def test_stem(threads, channels, height, width, stride):
    check(*both([layer("stem", 3, channels, stride, height, width)], picture(3, 3, height, width)))


def test_layers_in_a_row(threads):
    layers = [
        layer("stem", 3, 16, 2, 21, 18, 0),
        layer("depthwise", 16, 16, 1, 11, 9, 1),
        layer("pointwise", 16, 32, 1, 11, 9, 2),
        layer("depthwise", 32, 32, 2, 11, 9, 3),
        layer("pointwise", 32, 16, 1, 6, 5, 4),
    ]
    check(*both(layers, picture(4, 3, 21, 18)), share=2e-3)  # last bits move some activation across 0 or 6


def test_the_network_is_the_same(threads):
    spec = ModelSpec(height_px=64, width_px=96)
    network = SsdNetwork(spec)
    initialise(network, torch.Generator().manual_seed(3))
    network.to(memory_format=torch.channels_last).train()
    other = copy.deepcopy(network)
    other.use_kernels = False
    x = picture(6, 3, 64, 96)
    groups = [len(group) for layers, _ in network._stages() for group in fused._groups(layers)]
    assert groups == [23, 4, 1, 1, 1, 1, 1, 1]
    assert fused.supports(x)
    for got, want in zip(network(x), other(x), strict=True):
        assert (got - want).norm() <= 1e-2 * want.norm()
    for (name, got), (_, want) in zip(network.named_buffers(), other.named_buffers(), strict=True):
        if name.startswith("layers.0"):
            assert torch.allclose(got, want, rtol=1e-5), name


def test_same_bits_every_time(threads):
    results = []
    for _ in range(3):
        network = SsdNetwork(ModelSpec(height_px=64, width_px=64))
        initialise(network, torch.Generator().manual_seed(3))
        network.to(memory_format=torch.channels_last).train()
        codes, logits = network(picture(7, 3, 64, 64))
        (codes.sum() + logits.square().sum()).backward()
        results.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert all(torch.equal(results[0], r) for r in results[1:])


def test_nan_stays_nan():
    x = picture(2, 3, 16, 16)
    x[0, 0, 3, 3] = float("nan")
    assert fused.run_together([layer("stem", 3, 16, 2, 16, 16)], x).isnan().any()


@pytest.mark.parametrize("change", ["channels", "frozen", "kernel"])
def test_layers_without_a_kernel(change):
    unsupported = layer("depthwise", 24 if change == "channels" else 16, 24 if change == "channels" else 16, 1, 8, 8)
    unsupported.frozen = change == "frozen"
    if change == "kernel":
        unsupported.stride = 3
    assert fused.kernel_class(unsupported) is None


def test_chunks_cover_the_batch():
    for count in (1, 2, 5, 24):
        for size in (1, 2, 3):
            parts = chunks(count, size)
            assert [i for low, high in parts for i in range(low, high)] == list(range(count))
    assert len(chunks(24, 1)) == 1  # the order of the values, as TensorFlow sums them


def test_thread_pool_shares_work_and_errors():
    pool = ThreadPool(3)
    done: list[tuple[int, str]] = []
    pool.run(lambda i: done.append((i, threading.current_thread().name)), 20)
    assert sorted(i for i, _ in done) == list(range(20))

    def fail(i):
        if i == 7:
            raise ValueError("seven")

    with pytest.raises(ValueError, match="seven"):
        pool.run(fail, 20)
    pool.run(lambda i: done.append((i, "")), 4)  # it still works
    assert len(done) == 24


def test_kernels_take_pytorchs_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with fused.threads_for_kernels():
            assert (fused._kernel_threads, torch.get_num_threads()) == (2, 1)
        assert (fused._kernel_threads, torch.get_num_threads()) == (None, 2)
        with fused.threads_for_kernels(False):
            assert (fused._kernel_threads, torch.get_num_threads()) == (None, 2)
    finally:
        torch.set_num_threads(before)


def test_denormal_numbers_are_flushed_in_every_thread():
    """They would make a training several times slower. ARM's PyTorch may not be able to."""
    denormal = torch.full((64,), 1e-39)
    with fused.flushed_denormals():
        if (denormal * 0.5).any():
            pytest.skip("this processor's denormal numbers cannot be switched off")
        both = threading.Barrier(2)
        products: list[torch.Tensor] = []

        def multiply(_):
            both.wait(10)  # so that each thread takes one task
            products.append(denormal * 0.5)

        fused.thread_pool(2, fused._flush_denormals).run(multiply, 2)
        assert not torch.stack(products).any()
    assert (denormal * 0.5).all()


def test_inference_does_not_use_it(monkeypatch):
    def run(layers, x):
        raise AssertionError

    monkeypatch.setattr(fused, "run", run)
    network = SsdNetwork(ModelSpec(height_px=64, width_px=64))
    x = picture(2, 3, 64, 64)
    with pytest.raises(AssertionError):
        network.train()(x)
    with torch.no_grad():
        network(x)
    network.eval()(x)
