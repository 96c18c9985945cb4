from pellucid.report.about import shown_config


def test_no_folder_of_a_weights_file_is_shown() -> None:
    shown = shown_config(
        {
            "datasets": [{"name": "d", "path": "/home/someone/brain"}],
            "models": [
                "resnet18",
                {"name": "vgg11", "pretrained": "/home/someone/vgg.safetensors"},
                {"name": "linear", "features": ["resnet18", {"name": "vgg11", "pretrained": "/home/someone/v.pt"}]},
                {"name": "vote", "members": ["resnet18", "vgg11"]},
            ],
        }
    )
    assert "someone" not in shown
    for kept in ('"brain"', '"vgg.safetensors"', '"v.pt"', '"vote"'):
        assert kept in shown
