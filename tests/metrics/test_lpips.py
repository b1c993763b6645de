"""LPIPS agrees with torchmetrics on one random trunk; without trained trunks it is refused, never computed."""

import hashlib
import importlib
import sys

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn

from iterinv.metrics import lpips
from iterinv.metrics.lpips import NETWORKS, between, missing


def conv(*numbers, **how):
    return [nn.Conv2d(*numbers, **how), nn.ReLU()]


class Fire(nn.Module):
    """SqueezeNet's block, as torchvision names its parts."""

    def __init__(self, before, narrow, wide):
        super().__init__()
        self.squeeze, self.expand1x1 = nn.Conv2d(before, narrow, 1), nn.Conv2d(narrow, wide, 1)
        self.expand3x3 = nn.Conv2d(narrow, wide, 3, padding=1)

    def forward(self, x):
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], 1)


def trunk(name):
    """Build the published architecture of modules, with random weights that do not fade."""
    torch.manual_seed(0)
    if name == "alex":
        layers = [*conv(3, 64, 11, stride=4, padding=2), nn.MaxPool2d(3, 2), *conv(64, 192, 5, padding=2)]
        layers += [nn.MaxPool2d(3, 2), *conv(192, 384, 3, padding=1), *conv(384, 256, 3, padding=1)]
        layers += conv(256, 256, 3, padding=1)
    elif name == "vgg":
        layers, before = [], 3
        for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(count):
                layers += conv(before, width, 3, padding=1)
                before = width
            layers.append(nn.MaxPool2d(2, 2))
    else:
        layers = conv(3, 64, 3, stride=2)
        fires = (64, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128), (256, 48, 192), (384, 48, 192)
        fires = *fires, (384, 64, 256), (512, 64, 256)
        for k, sizes in enumerate(fires):
            layers += [nn.MaxPool2d(3, 2, ceil_mode=True)] * (k in (0, 2, 4)) + [Fire(*sizes)]
    for each in (module for layer in layers for module in layer.modules() if isinstance(module, nn.Conv2d)):
        nn.init.kaiming_normal_(each.weight)
    return nn.Sequential(*layers).requires_grad_(False)


def pictures(height=67, width=91):
    a = data.astronaut()[100 : 100 + height, 150 : 150 + width].copy()
    noise = np.random.default_rng(0).integers(-40, 41, a.shape)
    return a, np.clip(a.astype(int) + noise, 0, 255).astype(np.uint8), 255 - a, a[:, ::-1].copy()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_arithmetic_is_that_of_torchmetrics(name, monkeypatch):
    """Both take one trunk of random weights and torchmetrics' trained heads; torchvision, which torchmetrics takes its
    trunks from, is not installed."""
    module = importlib.import_module("torchmetrics.functional.image.lpips")
    shared = trunk(name)
    monkeypatch.setattr(module, "_get_tv_model_features", lambda *_: shared)
    oracle = module._LPIPS(pretrained=True, net=name)
    a, *others = pictures()
    weights = shared.state_dict()
    for b in (a, *others):
        x, y = (torch.from_numpy(each).permute(2, 0, 1)[None].float() / 127.5 - 1 for each in (a, b))
        want = float(oracle(x, y))
        assert between(a, b, None, name, weights) == pytest.approx(want, abs=1e-6, rel=1e-5)
    assert want > 0.01


@pytest.mark.parametrize("name", NETWORKS)
def test_a_mask_counts_what_is_inside_it(name):
    a, b, *_ = pictures(64, 64)
    weights, inside = trunk(name).state_dict(), np.zeros((64, 64), bool)
    inside[16:48, 8:40] = True
    outside_changed = np.where(inside[..., None], a, b)
    assert between(a, outside_changed, inside, name, weights) == 0
    assert between(a, b, np.ones((64, 64), bool), name, weights) == pytest.approx(between(a, b, None, name, weights))
    assert between(a, b, inside, name, weights) > 0
    assert between(a, b, ~np.ones((64, 64), bool), name, weights) is None


def test_without_trained_weights_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    a, b, *_ = pictures()
    with pytest.raises(ModuleNotFoundError, match=r"LPIPS needs alexnet-owt-7be5be79.pth: python -c .*load_state_dict"):
        lpips(a, b)
    with pytest.raises(ValueError, match="there is no network 'resnet': the networks are alex, vgg, squeeze"):
        lpips(a, b, network="resnet")
    with pytest.raises(ValueError, match="pictures are 91x20 px; LPIPS compares 32 px a side or more"):
        lpips(a[:20], b[:20])
    (tmp_path / NETWORKS["alex"].file).write_bytes(b"other weights")
    with pytest.raises(ValueError, match="is damaged or another file: delete it, and type: python -c"):
        lpips(a, b, weights=tmp_path)
    monkeypatch.setattr(sys.modules["iterinv.metrics.lpips"], "find_spec", lambda name: None)
    assert missing("alex") == "needs the trained heads of torchmetrics: pip install 'iterinv[metrics]'"


def test_a_file_of_weights_is_read_where_the_user_says_and_in_torchs_hub(tmp_path, monkeypatch):
    """The file is named by its own hash, as torchvision's are; classifiers in it are left aside."""
    state = {f"features.{name}": x for name, x in trunk("alex").state_dict().items()}
    torch.save({**state, "classifier.1.weight": torch.zeros(1)}, tmp_path / "new")
    digest = hashlib.sha256((tmp_path / "new").read_bytes()).hexdigest()
    named = NETWORKS["alex"]._replace(file=f"alexnet-{digest[:8]}.pth")
    monkeypatch.setitem(NETWORKS, "alex", named)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    a, b, *_ = pictures()
    want = between(a, b, None, "alex", trunk("alex").state_dict())
    assert missing("alex", tmp_path) is not None
    (tmp_path / "new").rename(tmp_path / named.file)
    assert lpips(a, b, weights=tmp_path) == pytest.approx(want)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / named.file).rename(tmp_path / "hub" / "checkpoints" / named.file)
    assert lpips(a, b) == pytest.approx(want)
