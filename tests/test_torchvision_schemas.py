"""torchvision's Python parts import beside a whole and beside a broken compiled part."""

import subprocess
import sys
import textwrap

import pytest


def run(script: str, *path: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *path], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def installed_torchvision_is_whole() -> bool:
    plain = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, check=False)
    return plain.returncode == 0


def test_import_works_whatever_the_installed_torchvision_is() -> None:
    assert run("import pellucid.torchvision_schemas, torchvision.transforms.v2, timm, lightning; print('ok')") == "ok"


def test_schemas_are_declared_for_a_torchvision_without_its_operators() -> None:
    if installed_torchvision_is_whole():
        pytest.skip("the installed torchvision is whole")
    declared = run("import pellucid.torchvision_schemas as t, torch; print(hasattr(torch.ops.torchvision, 'nms'))")
    assert declared == "True"
    plain = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True, check=False)
    assert "torchvision::nms does not exist" in plain.stderr


def test_schemas_there_already_are_left_alone() -> None:
    script = """
        import torch
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import pellucid.torchvision_schemas as schemas
        print(schemas.declare_missing_schemas(), schemas._library)
    """
    assert run(script) == "() None"


def test_a_whole_torchvision_declares_its_own(tmp_path) -> None:
    """A stand-in whose extension library registers the operators when loaded, as a whole torchvision's does."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_C.so").write_bytes(b"")
    script = """
        import sys
        sys.path.insert(0, sys.argv[1])
        import torch
        loaded = []
        def load_library(path):
            loaded.append(path)
            global library
            library = torch.library.Library("torchvision", "DEF")
            library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torch.ops.load_library = load_library
        import pellucid.torchvision_schemas as schemas
        print(schemas._library, loaded[0].endswith("_C.so"))
    """
    assert run(script, str(tmp_path)) == "None True"


def test_without_torchvision_nothing_happens() -> None:
    script = """
        import importlib.util, sys
        real = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name == "torchvision" else real(name, *rest)
        import pellucid.torchvision_schemas as schemas
        print(schemas._library)
    """
    assert run(script) == "None"
