"""Models that run elsewhere, in ONNX Runtime, scikit-learn or behind a service: scores are all that they give."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor, nn

from pellucid.attribution import METHODS, explain, method
from pellucid.attribution.families import Method
from pellucid.errors import InputError
from pellucid.registry import Choice
from references.cam_networks import seeded

ENOUGH = [entry.name for entry in METHODS if set(entry.needs) <= {"scores", "images"}]
OTHERS = [entry.name for entry in METHODS if entry.name not in ENOUGH]
FEW = {"samples": 24, "regions": 2, "designs": 4, "window": 6, "stride": 6}
Function = Callable[[Tensor], object]


def quick(name: str) -> Choice[Method]:
    return method(name, **{key: value for key, value in FEW.items() if key in METHODS[name].options})


def pictures(count: int = 3) -> Tensor:
    return torch.randn(count, 1, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return seeded(net)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def session(network: nn.Sequential) -> onnxruntime.InferenceSession:
    """The network as a graph of ONNX operators, written by hand."""
    weights = {name: numpy_helper.from_array(value.numpy(), name) for name, value in network.state_dict().items()}
    nodes = [
        helper.make_node("Conv", ["images", "0.weight", "0.bias"], ["convolved"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["convolved"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "4.weight", "4.bias"], ["logits"], transB=1),
    ]
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 12, 12])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])]
    graph = helper.make_graph(nodes, "net", inputs, outputs, list(weights.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def served(network: nn.Sequential) -> Iterator[str]:
    """Where a service on this machine answers images as JSON by their logits as JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with torch.no_grad():
                answer = json.dumps(network(torch.tensor(rows)).tolist()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def forest() -> RandomForestClassifier:
    """Tells images with a brighter upper left quarter from others."""
    images = torch.randn(200, 1, 12, 12, generator=torch.Generator().manual_seed(2))
    labels = np.arange(200) % 2
    images[1::2, :, :6, :6] += 1
    return RandomForestClassifier(20, max_depth=4, random_state=0).fit(images.flatten(1).numpy(), labels)


@pytest.fixture(params=["onnx", "service", "forest"])
def function(request: pytest.FixtureRequest) -> Function:
    if request.param == "onnx":
        session: onnxruntime.InferenceSession = request.getfixturevalue("session")
        return lambda rows: session.run(["logits"], {"images": rows.numpy()})[0]
    if request.param == "service":
        address: str = request.getfixturevalue("served")

        def ask(rows: Tensor) -> object:
            body = json.dumps(rows.tolist()).encode()
            with urllib.request.urlopen(urllib.request.Request(address, data=body), timeout=10) as answer:
                return json.loads(answer.read())

        return ask
    forest: RandomForestClassifier = request.getfixturevalue("forest")
    return lambda rows: forest.predict_proba(rows.flatten(1).numpy())


def test_every_method_that_needs_only_scores_is_served(function: Function) -> None:
    found = explain(function, pictures(), [quick(name) for name in ENOUGH], target=1)
    assert len(found.maps) == len(ENOUGH) >= 10
    torch.testing.assert_close(found.score, torch.as_tensor(function(pictures()))[:, 1].float())
    for label, maps in found.maps.items():
        assert maps.shape == (3, 12, 12)
        assert maps.isfinite().all(), label
        assert (maps.flatten(1).amax(dim=1) > maps.flatten(1).amin(dim=1)).any(), label
    assert (found.layer, found.grid) == ("", ())


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_method_is_refused_in_words(name: str) -> None:
    calls: list[Tensor] = []
    with pytest.raises(InputError) as raised:
        explain(lambda rows: calls.append(rows), pictures(), name)
    assert str(raised.value) == (
        "methods: expected methods that ask for scores alone, since the model is a bare function, "
        f"got {name}. These do: {', '.join(ENOUGH)}."
    )
    assert not calls


def test_maps_from_elsewhere_are_those_of_the_network(
    network: nn.Sequential, session: onnxruntime.InferenceSession, served: str
) -> None:
    methods = [quick(name) for name in ("occlusion", "rise", "feature-ablation", "lime")]
    here = explain(network, pictures(), methods, target="predicted")
    there = explain(lambda rows: session.run(None, {"images": rows.numpy()})[0], pictures(), methods)
    assert torch.equal(here.target, there.target)
    for label, maps in here.maps.items():
        torch.testing.assert_close(there.maps[label], maps, rtol=1e-3, atol=1e-5)


def test_a_forest_is_explained_by_the_quarter_that_it_looks_at(forest: RandomForestClassifier) -> None:
    images = pictures(20)
    images[:, :, :6, :6] += 1
    found = explain(lambda rows: forest.predict_proba(rows.flatten(1).numpy()), images, quick("feature-ablation"))
    quarters = next(iter(found.maps.values())).abs().reshape(20, 2, 6, 2, 6).mean(dim=(0, 2, 4))
    assert quarters.argmax() == 0
    assert quarters[0, 0] > 2 * np.delete(quarters.flatten().numpy(), 0).max()
