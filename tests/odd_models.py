"""Networks that were not looked at while the audit was written, each odd in a way of its own."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UNet(nn.Module):
    """Skips that are concatenated, upsampling by transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([self._pair(3, 8), self._pair(8, 16)])
        self.bottom = self._pair(16, 32)
        self.up = nn.ModuleList([nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)])
        self.joined = nn.ModuleList([self._pair(32, 16), self._pair(16, 8)])
        self.head = nn.Conv2d(8, 2, 1)

    def _pair(self, C: int, K: int) -> nn.Sequential:
        convs = nn.Conv2d(C, K, 3, padding=1), nn.Conv2d(K, K, 3, padding=1)
        return nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level in self.down:
            skips.append(level(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.bottom(x)
        for up, level in zip(self.up, self.joined, strict=True):
            x = level(torch.cat([skips.pop(), up(x)], dim=1))
        return self.head(x)


class Generator(nn.Module):
    """DCGAN: noise to images, a linear layer and transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(10, 32 * 4 * 4)
        self.norm = nn.BatchNorm2d(32)
        self.up = nn.ConvTranspose2d(32, 12, 4, stride=2, padding=1, bias=False)
        self.last = nn.ConvTranspose2d(12, 3, 4, stride=2, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = F.relu(self.norm(self.start(z).view(-1, 32, 4, 4)))
        return torch.tanh(self.last(F.leaky_relu(self.up(x), 0.2)))


class Language(nn.Module):
    """Token ids, learnt places, an encoder with a mask, and logits by the embedding itself."""

    def __init__(self, words: int = 30, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(50, width)
        layer = nn.TransformerEncoderLayer(width, 4, 40, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        T = ids.shape[1]
        causal = torch.triu(torch.full((T, T), float("-inf"), device=ids.device), 1)
        x = self.words(ids) + self.places(torch.arange(T, device=ids.device))
        x = self.encoder(x, mask=causal, src_key_padding_mask=mask)
        return F.linear(self.norm(x), self.words.weight)


class Video(nn.Module):
    """R(2+1)D: 1 x 3 x 3, then 3 x 1 x 1, with a residual sum."""

    def __init__(self, C: int = 6, M: int = 13) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, C, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False)
        self.space = nn.Conv3d(C, M, (1, 3, 3), padding=(0, 1, 1), bias=False)
        self.norm, self.time = nn.BatchNorm3d(M), nn.Conv3d(M, C, (3, 1, 1), padding=(1, 0, 0))
        self.head = nn.Linear(C, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.time(F.relu(self.norm(self.space(x)))))
        return self.head(F.adaptive_avg_pool3d(x, 1).flatten(1))


class Wave(nn.Module):
    """WaveNet: causal dilated convolutions, gates of two halves, residuals and skips."""

    def __init__(self, C: int = 6, S: int = 9, dilations: tuple[int, ...] = (1, 2, 4)) -> None:
        super().__init__()
        self.start = nn.Conv1d(1, C, 1)
        self.filters = nn.ModuleList([nn.Conv1d(C, 2 * C, 2, dilation=d) for d in dilations])
        self.residuals = nn.ModuleList([nn.Conv1d(C, C, 1) for _ in dilations])
        self.skips = nn.ModuleList([nn.Conv1d(C, S, 1) for _ in dilations])
        self.dilations, self.last = dilations, nn.Conv1d(S, 20, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.start(x), 0
        for d, both, residual, skip in zip(
            self.dilations, self.filters, self.residuals, self.skips, strict=True
        ):
            a, b = both(F.pad(x, (d, 0))).chunk(2, dim=1)
            y = torch.tanh(a) * torch.sigmoid(b)
            total = total + skip(y)
            x = x + residual(y)
        return self.last(F.relu(total))


class Experts(nn.Module):
    """All experts in one weight, applied as groups, mixed by a router; weights standardized."""

    def __init__(self, C: int = 4, K: int = 10, experts: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(experts * K, C, 3, 3))
        self.router, self.experts, self.mix = nn.Linear(C, experts), experts, nn.Conv2d(K, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        shares = torch.softmax(self.router(x.mean((2, 3))), dim=-1)
        y = F.conv2d(x, w, padding=1).unflatten(1, (self.experts, -1))
        return self.mix((y * shares[:, :, None, None, None]).sum(1))


class Speech(nn.Module):
    """DeepSpeech: a strided convolution over time, a GRU in both directions, logits."""

    def __init__(self, mels: int = 8, H: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv1d(mels, 12, 5, stride=2, padding=2)
        self.rnn = nn.GRU(12, H, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * H, 11)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardtanh(self.conv(x), 0, 20).transpose(1, 2)
        return F.log_softmax(self.head(self.rnn(x)[0]), dim=-1)


class Siamese(nn.Module):
    """Two inputs through one network, and their distance."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 16, 1), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(16, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.head((self.body(left) - self.body(right)).abs().flatten(1))


class Efficient(nn.Module):
    """MBConv with swish and squeeze-and-excitation written as functions of bare weights."""

    def __init__(self, C: int = 6, t: int = 4, squeezed: int = 2) -> None:
        super().__init__()
        R = t * C
        self.widen, self.narrow = nn.Parameter(torch.ones(R, C, 1, 1)), nn.Conv2d(R, C, 1)
        self.spatial = nn.Parameter(torch.ones(R, 1, 5, 5))
        self.squeeze, self.excite = nn.Linear(R, squeezed), nn.Linear(squeezed, R)
        self.norms = nn.ModuleList([nn.BatchNorm2d(R), nn.BatchNorm2d(R)])

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[0](F.conv2d(x, self.widen))
        y = y * torch.sigmoid(y)
        y = self.norms[1](F.conv2d(y, self.spatial, padding=2, groups=y.shape[1]))
        y = y * y.sigmoid()
        s = self.squeeze(y.mean(dim=[2, 3]))
        s = self.excite(s * torch.sigmoid(s)).sigmoid()
        return x + self.narrow(y * s.view(*s.shape, 1, 1))
