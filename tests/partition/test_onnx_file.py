"""ONNX files: real graphs against their known sizes, and hand-made ones against hand counts."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from eejax.partition.onnx_file import from_onnx
from eejax.partition.onnx_model import read_onnx

onnx = pytest.importorskip("onnx")
helper = onnx.helper
importlib.import_module("onnx.backend.test")
LIGHT = Path(onnx.backend.test.__path__[0], "data", "light")

# Compute nodes and edges between them, those on constants alone left out (242 and 138 Unsqueeze of
# DenseNet and Inception-v2, a Reshape of Inception-v1); tensors with several readers; places with a
# single live tensor; parameters, where AlexNet, VGG-19, SqueezeNet 1.1 and GoogLeNet are known by
# exactly these numbers, and the others hold statistics; and 1e9 multiply-adds.
KNOWN = {
    "bvlc_alexnet": (24, 23, 0, 23, 60_965_224, 0.655),
    "zfnet512": (22, 21, 0, 21, 87_250_536, 1.482),
    "vgg19": (46, 45, 0, 45, 143_667_240, 19.632),
    "squeezenet": (66, 73, 8, 33, 1_235_496, 0.349),
    "inception_v1": (144 - 1, 170 - 1, 9, 25, 6_998_552, 1.432),
    "inception_v2": (509 - 138, 536 - 138, 10, 30, 11_234_792, 2.019),
    "resnet50": (176, 191, 16, 39, 25_557_032 + 53_120, 4.089),
    "shufflenet": (203, 218, 16, 39, 1_420_152, 0.125),
    "densenet121": (910 - 242, 967 - 242, 58, 87, 8_146_152, 2.834),
}

# Operators, fused operators and blocks of single tensors after folding. Of DenseNet's 121 batch
# norms the 62 that follow no convolution stay.
FOLDED = {
    "bvlc_alexnet": (22, 14, 22),
    "zfnet512": (22, 14, 22),
    "vgg19": (44, 25, 44),
    "squeezenet": (65, 39, 33),
    "inception_v1": (142, 84, 25),
    "inception_v2": (371 - 3 * 69, 94, 22),
    "resnet50": (176 - 53, 57, 39),
    "shufflenet": (203 - 49, 75, 39),
    "densenet121": (121 + 62 + 121 + 58 + 5, 242, 77),
}


def light(name):
    return LIGHT / f"light_{name}.onnx"


def total(graph, field):
    return sum(getattr(layer, field) for layer in graph.layers)


@pytest.mark.parametrize("name", KNOWN)
def test_real_graphs_as_they_are(name):
    nodes, edges, fan_outs, cuts, parameters, gmac = KNOWN[name]
    graph = from_onnx(light(name), fold=False)
    inner = [tensor for tensor in graph.tensors if tensor.producer >= 0]
    assert len(graph.layers) == nodes
    assert sum(len(tensor.consumers) for tensor in inner) == edges
    assert sum(len(tensor.consumers) > 1 for tensor in inner) == fan_outs
    assert total(graph, "parameter_bytes") == 4 * parameters
    assert graph.tensors[0][1:] == (-1, (0,), 4 * 3 * 224 * 224)
    products = [o.flops for o in read_onnx(light(name)).operators if o.kind in ("Conv", "Gemm")]
    assert sum(products) / 2e9 == pytest.approx(gmac, abs=5e-4)
    blocks = from_onnx(light(name), "block", fold=False)
    assert len(blocks.layers) - 1 == cuts


@pytest.mark.parametrize("name", FOLDED)
def test_real_graphs_folded(name):
    raw = from_onnx(light(name), fold=False)
    graphs = [from_onnx(light(name), what) for what in ("operator", "layer", "block")]
    assert tuple(len(graph.layers) for graph in graphs) == FOLDED[name]
    operator, layer, block = graphs
    for field in ("flops", "bytes_moved", "parameter_bytes"):
        assert total(operator, field) <= total(raw, field)
        assert total(block, field) == total(operator, field)
    assert total(layer, "flops") == total(operator, "flops")
    assert total(layer, "parameter_bytes") == total(operator, "parameter_bytes")
    assert total(layer, "bytes_moved") < total(operator, "bytes_moved")
    assert "batch norm folded" in operator.granularity
    assert "batch norm" not in raw.granularity
    # A chain: each block reads the one before it alone.
    assert [tensor.producer for tensor in block.tensors] == list(range(-1, len(block.layers) - 1))
    assert all(t.consumers == (t.producer + 1,) for t in block.tensors)


def test_folding_leaves_what_convolutions_hold():
    # The 53 batch norms of ResNet-50 scale 26,560 channels: a bias each stays of four numbers.
    raw, folded = (from_onnx(light("resnet50"), fold=fold) for fold in (False, True))
    spared = total(raw, "parameter_bytes") - total(folded, "parameter_bytes")
    assert spared == 4 * 3 * 26_560
    # And of batch norms in front of convolutions, a scale and a shift: 121 Mul and Add vanish, too.
    kinds = [o.kind for o in read_onnx(light("densenet121")).operators]
    assert kinds.count("BatchNormalization") == 121
    names = [layer.name for layer in from_onnx(light("densenet121")).layers]
    assert sum(name.startswith("BatchNormalization") for name in names) == 62
    assert not any(name.startswith(("Mul", "Add")) for name in names)


def save(path, nodes, inputs, outputs, weights=(), opset=17, told=(), **keywords):
    """Writes a model: inputs by shape, outputs by name, weights as arrays, told shapes."""
    f32 = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "hand-made",
        [helper.make_tensor_value_info(name, f32, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, f32, None) for name in outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in dict(weights).items()],
        value_info=[helper.make_tensor_value_info(k, f32, v) for k, v in dict(told).items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("mine", 1)]
    model = helper.make_model(graph, opset_imports=imports)
    onnx.save(model, str(path), **keywords)
    return path


def node(kind, reads, makes, name="", **attributes):
    return helper.make_node(kind, reads.split(), makes.split(), name, **attributes)


def f32(*shape):
    return np.ones(shape, np.float32)


def test_costs_counted_by_hand(tmp_path):
    nodes = [
        node("Conv", "x w", "a", "stem", pads=[1, 1, 1, 1]),
        node("Identity", "a", "b"),
        node("Mul", "b scale", "c"),
        node("Add", "c shift", "d"),
        node("Relu", "d", "e"),
        node("GlobalAveragePool", "e", "f"),
        node("Flatten", "f", "g"),
        node("MatMul", "g v", "h", "dense"),
        node("Add", "h bias", "y"),
    ]
    weights = {
        "w": f32(4, 3, 3, 3),
        "scale": f32(4, 1, 1),
        "shift": f32(1, 4, 1, 1),
        "v": f32(4, 10),
        "bias": f32(10),
    }
    path = save(tmp_path / "a.onnx", nodes, {"x": ["N", 3, 8, 8]}, ["y"], weights)
    graph = from_onnx(path, input_dtype="uint8")
    pixels = 4 * 64
    rows = [
        # 8 x 8 x 4 outputs of 27 products each; 3 x 64 inputs, 108 weights and the new 4 biases.
        ("Conv_stem", 2 * pixels * 27, 4 * (192 + 108 + 4 + pixels), 4 * 112),
        ("Relu_e", pixels, 4 * 2 * pixels, 0),
        ("GlobalAveragePool_f", pixels, 4 * (pixels + 4), 0),
        ("Flatten_g", 0, 0, 0),
        ("MatMul_dense", 2 * 4 * 10, 4 * (4 + 40 + 10 + 10), 4 * 50),
    ]
    assert [tuple(layer) for layer in graph.layers] == rows
    assert [tuple(tensor) for tensor in graph.tensors] == [
        ("x", -1, (0,), 192),
        ("d", 0, (1,), 4 * pixels),
        ("e", 1, (2,), 4 * pixels),
        ("f", 2, (3,), 16),
        ("g", 3, (4,), 16),
    ]
    # Relu follows Conv, and Flatten the pool, without what lies between.
    fused = from_onnx(path, "layer")
    assert [tuple(layer) for layer in fused.layers] == [
        ("Conv_stem", rows[0][1] + pixels, rows[0][2], rows[0][3]),
        rows[2],
        rows[4],
    ]
    raw = from_onnx(path, fold=False)
    assert [layer.name for layer in raw.layers][:4] == ["Conv_stem", "Identity_b", "Mul_c", "Add_d"]


def test_scales_need_no_bias_and_batch_norm_keeps_two_numbers_by_channel(tmp_path):
    x, weights = {"x": [1, 3, 8, 8]}, {"w": f32(4, 3, 1, 1), "c": f32(4, 1, 1)}
    scaled = [node("Conv", "x w", "a"), node("Mul", "a c", "y")]
    (layer,) = from_onnx(save(tmp_path / "1", scaled, x, ["y"], weights)).layers
    assert layer.parameter_bytes == 4 * 12
    # A second shift, and one after a bias, add none either.
    shifted = [node("Conv", "x w", "a"), node("Add", "a c", "b"), node("Sub", "b c", "y")]
    (layer,) = from_onnx(save(tmp_path / "2", shifted, x, ["y"], weights)).layers
    assert layer.parameter_bytes == 4 * (12 + 4)
    biased = [node("Conv", "x w bias", "a"), node("Mul", "a c", "b"), node("Add", "b c", "y")]
    path = save(tmp_path / "3", biased, x, ["y"], weights | {"bias": f32(4)})
    assert from_onnx(path).layers[0].parameter_bytes == 4 * (12 + 4)
    statistics = dict.fromkeys(("g", "b", "m", "v"), f32(3)) | {"c": f32(3, 1, 1)}
    normed = [
        node("Relu", "x", "a"),
        node("BatchNormalization", "a g b m v", "n"),
        node("Mul", "n c", "o"),
        node("Add", "o c", "y"),
    ]
    layers = from_onnx(save(tmp_path / "4", normed, x, ["y"], statistics)).layers
    assert [tuple(layer[1:]) for layer in layers] == [
        (192, 4 * 2 * 192, 0),
        (2 * 192, 4 * (2 * 192 + 6), 4 * 6),
    ]


def test_quantised_weights_are_held_as_they_are(tmp_path):
    nodes = [node("DequantizeLinear", "q scale", "w"), node("MatMul", "x w", "y")]
    weights = {"q": np.ones((8, 2), np.int8), "scale": np.float32(0.1)}
    (layer,) = from_onnx(save(tmp_path / "a", nodes, {"x": [1, 8]}, ["y"], weights)).layers
    assert layer.parameter_bytes == 16 + 4


def test_no_fold_where_it_would_change_the_function(tmp_path):
    weights = {"w": f32(4, 3, 1, 1), "c": f32(4, 1, 1), "row": f32(8)}
    x = {"x": [1, 3, 8, 8]}
    # Two readers; a constant by column; a constant that makes the result larger.
    two = [node("Conv", "x w", "a"), node("Mul", "a c", "b"), node("Add", "a b", "y")]
    assert len(from_onnx(save(tmp_path / "1", two, x, ["y"], weights)).layers) == 3
    row = [node("Conv", "x w", "a"), node("Mul", "a row", "y")]
    assert len(from_onnx(save(tmp_path / "2", row, x, ["y"], weights)).layers) == 2
    # The middle is an output of the model.
    out = [node("Conv", "x w", "a"), node("Mul", "a c", "y")]
    assert len(from_onnx(save(tmp_path / "3", out, x, ["y", "a"], weights)).layers) == 2
    # A product of two activations holds no weights.
    scores = [node("MatMul", "x x", "a"), node("Mul", "a half", "y")]
    half = {"half": np.float32(0.5)}
    assert len(from_onnx(save(tmp_path / "4", scores, x, ["y"], half)).layers) == 2


def test_constants_and_shapes_cost_nothing_and_dead_ends_are_left_out(tmp_path):
    nodes = [
        node("Transpose", "w", "wt"),
        node("Shape", "x", "s"),
        node("Gather", "s zero", "batch"),
        node("Unsqueeze", "batch axis", "b1"),
        node("Concat", "b1 rest", "shape", axis=0),
        node("Reshape", "x shape", "flat"),
        node("MatMul", "flat wt", "y"),
        node("Sigmoid", "flat", "unused"),
    ]
    weights = {
        "w": f32(10, 48),
        "zero": np.int64(0),
        "axis": np.array([0]),
        "rest": np.array([48]),
    }
    path = save(tmp_path / "a.onnx", nodes, {"x": ["N", 3, 4, 4]}, ["y"], weights)
    graph = from_onnx(path)
    assert [layer.name for layer in graph.layers] == ["Reshape_flat", "MatMul_y"]
    assert [layer.parameter_bytes for layer in graph.layers] == [0, 4 * 480]
    assert from_onnx(path, shapes={"x": (5, 3, 4, 4)}).layers[1].flops == 5 * 2 * 480


def test_new_shapes_are_computed_at_the_opset_of_the_file(tmp_path):
    # Half of the height, through arithmetic that shape inference alone does not follow.
    nodes = [
        node("Shape", "x", "s"),
        node("Slice", "s two three", "h"),
        node("Squeeze", "h", "h0", axes=[0]),
        node("Cast", "h0", "hf", to=1),
        node("Mul", "hf half", "hh"),
        node("Floor", "hh", "hl"),
        node("Cast", "hl", "hi", to=7),
        node("Unsqueeze", "hi", "h1", axes=[0]),
        node("Concat", "lead h1 rest", "shape", axis=0),
        node("Reshape", "x shape", "a"),
        node("Relu", "a", "y"),
    ]
    weights = {
        "two": np.array([2]),
        "three": np.array([3]),
        "half": np.float32(0.5),
        "lead": np.array([1, 3]),
        "rest": np.array([-1]),
    }
    path = save(tmp_path / "a", nodes, {"x": ["N", 3, "H", "W"]}, ["y"], weights, opset=11)
    model = read_onnx(path, shapes={"x": (1, 3, 9, 8)})
    assert [o.kind for o in model.operators] == ["Reshape", "Relu"]
    assert model.values["a"].shape == (1, 3, 4, 18)


def test_one_name_is_one_number_in_all_inputs(tmp_path):
    nodes = [node("Add", "x state", "a"), node("Add", "a mask", "y")]
    inputs = {"x": ["batch", "width"], "state": [2, "batch", "width"], "mask": ["batch", 1]}
    path = save(tmp_path / "a.onnx", nodes, inputs, ["y"])
    model = read_onnx(path, shapes={"x": (3, 5)})
    assert model.values["state"].shape == (2, 3, 5)
    assert model.values["mask"].shape == (3, 1)
    with pytest.raises(ValueError, match=r"'x' has the shape \(batch, width\).*got \[1, 'width'\]"):
        read_onnx(path)
    # Some exporters write -1 for an open dimension.
    path = save(tmp_path / "b.onnx", [node("Relu", "x", "y")], {"x": [-1, 4]}, ["y"])
    assert from_onnx(path).tensors[0].nbytes == 16


def test_operators_of_other_domains_need_a_rule_and_a_told_shape(tmp_path):
    nodes = [node("Mine", "x", "a", domain="mine"), node("Relu", "a", "y")]
    rules = {"Mine": lambda *_: 42}
    path = save(tmp_path / "a.onnx", nodes, {"x": [1, 4]}, ["y"], told={"a": [1, 9]})
    assert [layer.flops for layer in from_onnx(path, rules=rules).layers] == [42, 9]
    path = save(tmp_path / "b.onnx", nodes, {"x": [1, 4]}, ["y"])
    with pytest.raises(ValueError, match="the shape of 'a' at the Mine 'a' does not follow"):
        from_onnx(path, rules=rules)


def test_branches_inside_of_an_operator_read_what_is_outside(tmp_path):
    def branch(kind):
        out = [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [1, 4])]
        return helper.make_graph([node(kind, "a", "out")], kind, [], out)

    either = node("If", "yes", "y", then_branch=branch("Relu"), else_branch=branch("Abs"))
    nodes = [either, node("Sqrt", "x", "a")]
    path = save(tmp_path / "a.onnx", nodes, {"x": [1, 4]}, ["y"], {"yes": np.array(True)})
    with pytest.raises(ValueError, match=r"unknown cost: If \(1\)"):
        from_onnx(path)
    told = {"y": [1, 4]}
    save(path, nodes, {"x": [1, 4]}, ["y"], {"yes": np.array(True)}, told=told)
    assert [o.reads for o in read_onnx(path, rules={"If": lambda *_: 4}).operators] == [
        ("x",),
        ("a", "a"),
    ]


def test_weights_outside_of_the_file_are_never_opened(tmp_path):
    # Of the two, the small one would be computed if its value were in the file.
    nodes = [node("MatMul", "x w", "a"), node("Neg", "v", "u"), node("MatMul", "a u", "y")]
    path = save(
        tmp_path / "a.onnx",
        nodes,
        {"x": [1, 64]},
        ["y"],
        {"w": f32(64, 4), "v": f32(4, 4)},
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    inside = from_onnx(path)
    (tmp_path / "weights.bin").unlink()
    assert from_onnx(path) == inside
    assert [layer.parameter_bytes for layer in inside.layers] == [4 * 256, 4 * 16]
    # A file that names one of another folder.
    model = onnx.load(str(path), load_external_data=False)
    for weight in model.graph.initializer:
        for entry in weight.external_data:
            if entry.key == "location":
                entry.value = "../../../etc/hostname"
    path.write_bytes(model.SerializeToString())
    assert from_onnx(path) == inside


def test_own_rules_and_the_list_of_unknown_operators(tmp_path):
    nodes = [
        node("Det", "x", "a"),
        node("Relu", "a", "b"),
        node("Einsum", "b", "y", equation="i->i"),
    ]
    path = save(tmp_path / "a.onnx", [*nodes, node("Det", "x", "z")], {"x": [5, 3, 3]}, ["y", "z"])
    with pytest.raises(ValueError, match=r"unknown cost: Det \(2\), Einsum \(1\); give rules="):
        from_onnx(path)
    rules = {"Det": lambda _, inputs, __: 7 * inputs[0].size, "Einsum": lambda *_: 11}
    assert [layer.flops for layer in from_onnx(path, rules=rules).layers] == [315, 5, 11, 315]


def test_nodes_out_of_order_are_sorted(tmp_path):
    nodes = [node("Relu", "a", "y"), node("Sigmoid", "x", "a")]
    graph = from_onnx(save(tmp_path / "a.onnx", nodes, {"x": [1, 4]}, ["y"]))
    assert [layer.name for layer in graph.layers] == ["Sigmoid_a", "Relu_y"]


def test_faults_are_named(tmp_path):
    x = {"x": [1, 4]}

    def refuse(message, nodes, inputs=x, weights=(), **keywords):
        path = save(tmp_path / "a.onnx", nodes, inputs, ["y"], weights)
        with pytest.raises(ValueError, match=message):
            from_onnx(path, **keywords)

    refuse(
        r"a\.onnx: the operators form a cycle: (one -> two -> one|two -> one -> two)",
        [node("Add", "x b", "a", "one"), node("Relu", "a", "b", "two"), node("Relu", "b", "y")],
    )
    refuse("the Relu 'y' reads 'ghost', which nothing makes", [node("Relu", "ghost", "y")])
    refuse("no output depends on an input", [node("Relu", "w", "y")], weights={"w": f32(2)})
    refuse(
        "attributes or shapes do not fit at the MatMul 'y'",
        [node("MatMul", "x w", "y")],
        weights={"w": f32(5, 2)},
    )
    refuse("do not fit at the Relu 'y': Unrecognized attr", [node("Relu", "x", "y", slope=1.0)])
    refuse("nothing makes the output 'y'", [node("Relu", "x", "z")])
    refuse("'y' is made twice", [node("Relu", "x", "y"), node("Abs", "x", "y")])
    relu = [node("Relu", "x", "y")]
    wide = {"x": [1, 3, "height", None]}
    refuse(r"input 'x' has the shape \(1, 3, height, \?\); shapes=\{'x': \.\.\.\}", relu, wide)
    refuse(r"agree with the others, got \[2, 3, 4, 4\]", relu, wide, shapes={"x": (2, 3, 4, 4)})
    refuse(r"input 'x' has the shape .* > 0", relu, wide, shapes={"x": (1, 3, 0, 4)})
    refuse("shapes: 'xx' is none of the inputs x; did you mean 'x'", relu, shapes={"xx": (1, 4)})
    refuse("granularity 'blocks' is none of .*; did you mean 'block'", relu, granularity="blocks")
    refuse(
        "the shape of 'a' at the NonZero 'a' does not follow",
        [node("NonZero", "x", "a"), node("Cast", "a", "y", to=1)],
        rules={"NonZero": lambda *_: 1},
    )


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError):
        from_onnx(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no model at all")
    with pytest.raises(ValueError, match=r"text\.onnx is no ONNX file"):
        from_onnx(tmp_path / "text.onnx")
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ValueError, match=r"empty\.onnx: no ONNX file"):
        from_onnx(tmp_path / "empty.onnx")


def test_damaged_files_give_one_kind_of_error(tmp_path):
    source, path = light("squeezenet").read_bytes(), tmp_path / "a.onnx"
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(60):
        damaged = np.frombuffer(source, np.uint8).copy()
        damaged[rng.integers(len(damaged), size=3)] = rng.integers(256, size=3)
        path.write_bytes(damaged.tobytes())
        try:
            from_onnx(path)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert all("a.onnx" in message for message in messages)


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'eejax\[onnx\]'"):
        from_onnx("any.onnx")
