"""Losses that the sample does not use, by hand and against TensorFlow; what the plan makes of a config."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mirilla import config  # noqa: E402
from mirilla.config.to_spec import model_spec  # noqa: E402
from mirilla.errors import ConfigError  # noqa: E402
from mirilla.model.initializers import initialise  # noqa: E402
from mirilla.model.layers import architecture  # noqa: E402
from mirilla.model.network import SsdNetwork  # noqa: E402
from mirilla.training.losses import (  # noqa: E402
    Batch,
    ClassificationLoss,
    LocalizationLoss,
    ObjectiveSpec,
    match_targets,
    objective,
    sample,
)
from mirilla.training.matching import MatcherSpec, encode  # noqa: E402
from mirilla.training.optimizer import Adam, FlatParameters, TrainState  # noqa: E402
from mirilla.training.plan import training_plan  # noqa: E402
from mirilla.weights import checkpoint  # noqa: E402

ANCHORS = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0, 0.5, 0.5, 1.0], [0.0, 0.0, 0.4, 0.6]])
PLAIN = ObjectiveSpec(miner=None, matcher=MatcherSpec(0.7, 0.3, True, True, False))


def batch(box=(0.0, 0.0, 0.5, 0.5)):
    """One picture with one object: anchor 0 is it, 1 and 2 are background, 3 (IoU 0.2/0.29) is ignored."""
    return Batch(
        torch.tensor([[box]]),
        torch.zeros(1, 1, dtype=torch.int64),
        torch.ones(1, 1),
        torch.ones(1, 1, dtype=torch.bool),
        torch.zeros(1, 1, dtype=torch.bool),
    )


def plan_of(overlay="", **options):
    pipeline = config.merge(config.sample(1, "t", "e", "l", steps=10, **options), overlay)
    return training_plan(pipeline, model_spec(pipeline))


# ---- losses


def test_softmax_by_hand():
    """softmax(1, 3) = (0.1192, 0.8808); halved logits: (0.2689, 0.7311)."""
    logits, target = torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[0.0, 1.0]]])
    assert ClassificationLoss("softmax")(logits, target, torch.ones(1, 1)).item() == pytest.approx(0.126928, abs=1e-6)
    scaled = ClassificationLoss("softmax", logit_scale=2.0)(logits, target, torch.full((1, 1), 3.0))
    assert scaled.item() == pytest.approx(3 * 0.313262, abs=1e-5)


def test_bootstrapped_by_hand():
    """p = sigmoid(2) = 0.8808; the target 0 becomes 0.75 * 0 + 0.25 * p or, hard, 0.25."""
    logit, target, weight = torch.tensor([[[2.0]]]), torch.zeros(1, 1, 1), torch.ones(1, 1)
    plain = math.log1p(math.exp(2.0))
    soft = ClassificationLoss("bootstrapped", alpha=0.75)(logit, target, weight)
    hard = ClassificationLoss("bootstrapped", alpha=0.75, hard=True)(logit, target, weight)
    assert soft.item() == pytest.approx(plain - 2 * 0.25 * 0.880797, abs=1e-5)
    assert hard.item() == pytest.approx(plain - 2 * 0.25, abs=1e-5)


def test_iou_loss_by_hand():
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.1, 0.1]]])
    others = torch.tensor([[[0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 1.0, 1.0]]])
    loss = LocalizationLoss("iou")(boxes, others, torch.tensor([[1.0, 1.0, 2.0]]))
    assert loss.tolist() == [pytest.approx([0.5, 0.0, 2.0])]


def test_iou_loss_is_of_decoded_boxes():
    codes = encode(torch.tensor([0.0, 0.0, 0.5, 0.25]), ANCHORS, PLAIN.box_coder)[None].requires_grad_()
    spec = replace(PLAIN, localization=LocalizationLoss("iou"))
    targets = match_targets(batch(), ANCHORS, spec)
    losses, _ = objective(codes, torch.zeros(1, 4, 2), targets, ANCHORS, spec)
    assert losses.localization.item() == pytest.approx(0.5, abs=1e-5)
    losses.total.backward()
    assert codes.grad.abs().sum() > 0
    assert not codes.grad.isnan().any()


def test_background_as_zeros_and_negative_weight():
    plain = match_targets(batch(), ANCHORS, PLAIN)
    assert plain.match.tolist() == [[0, -1, -1, -2]]
    assert plain.classes.tolist() == [[[0, 1], [1, 0], [1, 0], [1, 0]]]
    assert plain.class_weights.tolist() == [[1, 1, 1, 0]]
    changed = match_targets(batch(), ANCHORS, replace(PLAIN, background_as_zeros=True, negative_class_weight=0.25))
    assert changed.classes.tolist() == [[[0, 1], [0, 0], [0, 0], [0, 0]]]
    assert changed.class_weights.tolist() == [[1, 0.25, 0.25, 0]]


def test_normalising_by_the_code_size():
    targets = match_targets(batch(), ANCHORS, PLAIN)
    codes = torch.ones(1, 4, 4)
    halves = [
        objective(codes, torch.zeros(1, 4, 2), targets, ANCHORS, replace(PLAIN, **more))[0].localization
        for more in ({}, {"normalize_localization_by_code_size": True})
    ]
    assert halves[0].item() == pytest.approx(4 * 0.5)  # four codes that differ by 1
    assert halves[1].item() == pytest.approx(0.5)


def test_sampler_keeps_positives_and_their_share_of_negatives():
    targets = match_targets(batch(), ANCHORS, PLAIN)
    torch.manual_seed(0)
    drawn = torch.stack([sample(targets, 0.5)[0] for _ in range(400)])
    assert drawn[:, 0].all()
    assert not drawn[:, 3].any()
    assert (drawn[:, 1:3].sum(1) == 1).all()
    assert 0.4 < drawn[:, 1].float().mean() < 0.6
    assert sample(targets, 0.01)[0].tolist() == [True, True, True, False]
    assert sample(targets, 1.0)[0].tolist() == [True, False, False, False]


# ---- optimiser


def test_adam_by_hand():
    """First moment 0.1 * 2, second 0.001 * 4; the rate corrected by sqrt(1 - 0.999) / (1 - 0.9)."""
    weight = torch.nn.Parameter(torch.zeros(1))
    flat = FlatParameters({"w": weight}, {})
    state = TrainState(flat, Adam(epsilon=1.0), None)
    flat.gradient.fill_(2.0)
    state.apply(0.1)
    rate = 0.1 * math.sqrt(1 - 0.999) / (1 - 0.9)
    assert weight.item() == pytest.approx(-rate * 0.2 / (math.sqrt(0.004) + 1.0), rel=1e-5)
    assert plan_of(
        "train_config { optimizer { adam_optimizer { epsilon: 0.5 learning_rate { constant_learning_rate {} } } } }"
    ).optimizer == Adam(epsilon=0.5)


def test_gradients_are_scaled_and_frozen():
    table = architecture(model_spec(config.sample(1, "t", "e", "l")))
    names = [n for n, _, trainable in table.variables() if trainable]
    assert plan_of().gradient_scale == {}
    biases = plan_of("train_config { bias_grad_multiplier: 2 }").gradient_scale
    assert biases == {n: 2.0 for n in names if n.endswith("/biases")}
    assert len(biases) == 10
    frozen = plan_of("train_config { freeze_variables: ['FeatureExtractor', 'BoxPredictor_0/.*weights$'] }")
    left = [n for n in names if n not in frozen.gradient_scale]
    assert len(left) == 18
    assert all(n.startswith("BoxPredictor") for n in left)
    only = plan_of(
        "train_config { update_trainable_variables: 'BoxPredictor' freeze_variables: 'ClassPredictor' "
        "bias_grad_multiplier: 3 }"
    ).gradient_scale
    assert {n: only.get(n, 1.0) for n in names} == {
        n: 0.0 if "BoxEncoding" not in n else 3.0 if n.endswith("biases") else 1.0 for n in names
    }
    with pytest.raises(ConfigError, match="'Backbone' matches no variable"):
        plan_of("train_config { freeze_variables: 'Backbone' }")
    with pytest.raises(ConfigError, match="every variable is frozen"):
        plan_of("train_config { freeze_variables: '.*' }")


def test_frozen_variables_do_not_move():
    weights = {"a": torch.nn.Parameter(torch.ones(2)), "b": torch.nn.Parameter(torch.ones(3))}
    for optimizer in (plan_of().optimizer, Adam()):
        flat = FlatParameters(weights, {"a": 0.1, "b": 0.1}, {"a": 0.0})
        state = TrainState(flat, optimizer, 0.9)
        before = weights["b"].detach().clone()
        for _ in range(3):
            flat.gradient.fill_(1.0)
            flat.add_regularization_gradient()
            flat.scale_gradient()
            state.apply(0.1)
        assert weights["a"].tolist() == [1, 1]
        assert (weights["b"] < before).all()


# ---- the plan


def test_losses_of_a_config():
    def classification(text):
        block = f"model {{ ssd {{ loss {{ classification_loss {{ {text} }} }} }} }}"
        return plan_of(block).objective.classification

    assert classification("weighted_softmax { logit_scale: 2 }") == ClassificationLoss("softmax", logit_scale=2.0)
    assert classification("bootstrapped_sigmoid { alpha: 0.5 hard_bootstrap: true }") == (
        ClassificationLoss("bootstrapped", alpha=0.5, hard=True)
    )
    for text, kind in (
        ("weighted_iou {}", "iou"),
        ("weighted_l2 {}", "l2"),
        ("weighted_smooth_l1 {}", "smooth_l1"),
    ):
        block = f"model {{ ssd {{ loss {{ localization_loss {{ {text} }} }} }} }}"
        assert plan_of(block).objective.localization.kind == kind
    rest = plan_of(
        "model { ssd { encode_background_as_zeros: true negative_class_weight: 0.5 "
        "normalize_loc_loss_by_codesize: true loss { random_example_sampler {} } } }"
    )
    spec = rest.objective
    assert (spec.background_as_zeros, spec.negative_class_weight) == (True, 0.5)
    assert spec.normalize_localization_by_code_size
    assert spec.sampled_positive_share == pytest.approx(0.01)
    assert rest.is_random
    assert not plan_of().is_random


def test_regularisation():
    table = architecture(model_spec(config.sample(1, "t", "e", "l")))
    depthwise = [e.weights for e in table.layers if e.kind == "depthwise"]
    base = plan_of().l2
    assert sum(v > 0 for v in base.values()) == 30  # of the original's measurement
    assert all(base[n] == 0 for n in depthwise)
    assert plan_of("train_config { add_regularization_loss: false }").l2 == {}
    own = plan_of(
        "model { ssd { feature_extractor { override_base_feature_extractor_hyperparams: true "
        "conv_hyperparams { regularizer { l2_regularizer { weight: 0.5 } } } } } }"
    ).l2
    assert all(own[n] == 0.5 for n in [*depthwise, "FeatureExtractor/MobilenetV1/Conv2d_0/weights"])
    assert own["BoxPredictor_0/ClassPredictor/weights"] == pytest.approx(4e-5)


def test_depthwise_kernels_of_the_larger_network_are_regularised(shared):
    pipeline = config.load(shared / "data/odapi/samples/ssd_mobilenet_v1_coco.config")
    spec = model_spec(pipeline)
    l2 = training_plan(pipeline, spec).l2
    assert all(l2[e.weights] == pytest.approx(4e-5) for e in architecture(spec).layers)


def test_conv_hyperparams_reach_the_base_network_on_demand():
    text = (
        "model {{ ssd {{ feature_extractor {{ {} conv_hyperparams {{ initializer {{ "
        "truncated_normal_initializer {{ stddev: 0.01 }} }} "
        "batch_norm {{ decay: 0.9 train: false }} }} }} }} }}"
    )
    apart, together = (
        plan_of(text.format("")),
        plan_of(text.format("override_base_feature_extractor_hyperparams: true")),
    )
    assert apart.base_batch_norm_decay == 0.9997
    assert together.base_batch_norm_decay == together.extra_batch_norm_decay == pytest.approx(0.9)
    assert (apart.freeze_base_batch_norm, apart.freeze_extra_batch_norm) == (False, True)
    assert together.freeze_base_batch_norm
    assert apart.initializers[0].stddev == 0.09
    assert together.initializers[0].stddev == pytest.approx(0.01)
    frozen = plan_of("model { ssd { freeze_batchnorm: true } }")
    assert frozen.freeze_base_batch_norm
    assert frozen.freeze_extra_batch_norm


# ---- the network's training options


def small_network():
    pipeline = config.sample(1, "t", "e", "l", height=64, width=64)
    pipeline.model.ssd.anchor_generator.ssd_anchor_generator.min_scale = 0.3
    network = SsdNetwork(model_spec(pipeline)).train()
    initialise(network, torch.Generator().manual_seed(0), class_bias=-4.6)
    return network


def test_class_bias():
    network = small_network()
    for name, value in network.get_weights().items():
        if name.endswith("biases"):
            assert np.allclose(value, -4.6 if "Class" in name else 0.0), name


def test_frozen_statistics_stay_and_are_used():
    network = small_network()
    network.freeze_batch_norm(base=True, extra=False)
    before = {n: t.clone() for n, t in network.tensors().items() if "moving" in n}
    x = torch.randn(4, 3, 64, 64)
    network(x)
    for entry in network.table.layers:
        name = entry.batch_norm("moving_mean")
        assert torch.equal(network.tensors()[name], before[name]) == entry.is_base, name
    network.freeze_batch_norm(True, True)
    trained = network(x)
    torch.testing.assert_close(trained, network.eval()(x))


def test_dropout_reaches_the_classes_only_and_only_in_training():
    network = small_network()
    network.set_dropout(0.5)
    x = torch.randn(2, 3, 64, 64)
    torch.manual_seed(1)
    first, second = network(x), network(x)
    torch.testing.assert_close(first[0], second[0])
    assert not torch.allclose(first[1], second[1])
    torch.manual_seed(1)
    torch.testing.assert_close(network(x)[1], first[1])
    network.eval()
    torch.testing.assert_close(network(x), network(x))
    text = (
        "model { ssd { box_predictor { convolutional_box_predictor { "
        "use_dropout: true dropout_keep_probability: 0.7 } } } }"
    )
    assert plan_of(text).dropout == pytest.approx(0.3)
    assert plan_of().dropout == 0


# ---- checkpoints that stay


def test_some_checkpoints_stay(tmp_path):
    hours = 0.0
    keeper = checkpoint.Keeper(tmp_path, 2, clock=lambda: hours * 3600)
    for step in range(1, 21):
        hours = step / 2
        keeper.save(checkpoint.Checkpoint(step, {"a": np.zeros(1, np.float32)}, {}))
    steps = [int(p.name.split("-")[1].split(".")[0]) for p in checkpoint.all_checkpoints(tmp_path)]
    # the first ones written after 2, 4 and 6 hours; 17 is the next after 8 and still among the newest five
    assert steps == [5, 9, 13, 16, 17, 18, 19, 20]
    again = checkpoint.Keeper(tmp_path, 2, clock=lambda: hours * 3600)
    again.save(checkpoint.Checkpoint(21, {"a": np.zeros(1, np.float32)}, {}))
    assert len(checkpoint.all_checkpoints(tmp_path)) == 8


# ---- against TensorFlow


@pytest.mark.parametrize(
    ("loss", "values", "gradients"),
    [
        (
            ClassificationLoss("softmax", logit_scale=1.5),
            [1.203803, 0.175085],
            [[0.221747, -0.303323, 0.081576], [0.011487, 0.100273, -0.111760]],
        ),
        (
            ClassificationLoss("bootstrapped", alpha=0.8),
            [1.926745, 1.814825],
            [[0.331320, -0.272762, 0.237234], [0.130093, 0.874869, -0.057038]],
        ),
        (
            ClassificationLoss("bootstrapped", alpha=0.8, hard=True),
            [1.857133, 1.685353],
            [[0.340399, -0.265529, 0.211230], [0.094852, 0.724353, -0.035972]],
        ),
    ],
)
def test_losses_and_gradients_as_tensorflow_has_them(loss, values, gradients):
    """Made with softmax_cross_entropy_with_logits and sigmoid_cross_entropy_with_logits, to six digits."""
    logits = torch.tensor([[[2.0, -1.0, 0.5], [-3.0, 0.25, 4.0]]], requires_grad=True)
    target = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])
    value = loss(logits, target, torch.tensor([[0.5, 2.0]]))
    value.sum().backward()
    np.testing.assert_allclose(value.detach()[0], values, atol=2e-6)
    np.testing.assert_allclose(logits.grad[0], gradients, atol=2e-6)
