"""What an audit may be run on, recurrent layers, and values that are written in place."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import krratio as kr
from krratio.auditing.errors import ForwardError
from krratio.auditing.walking.inputs import shapes_of
from krratio.auditing.walking.walk import walk
from krratio.errors import ShapeError


def layers_of(found):
    frame = found.to_frame()
    return frame[frame["level"] == "layer"].to_dict("records")


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, ids, *, weights=None, more=None):
        x = self.words(ids)
        x = x if weights is None else x * weights
        return self.head(x if more is None else x + more["bias"])


IDS = torch.zeros(1, 5, dtype=torch.long)


@pytest.mark.parametrize(
    "given",
    [
        IDS,
        [IDS],
        {"ids": IDS},
        {"ids": IDS.to("meta"), "weights": (5, 4)},
        {"ids": IDS.int(), "weights": torch.zeros(1, 5, 1), "more": {"bias": (5, 4)}},
    ],
)
def test_inputs_are_shapes_or_tensors_by_position_or_by_name(given):
    assert kr.audit(Named(), given).macs == 5 * 4 * 3


def test_a_tensor_counts_with_its_batch_and_stays_as_it_was():
    ids = torch.arange(6).reshape(2, 3).requires_grad_(False)
    assert kr.audit(Named(), ids).macs == 2 * 3 * 4 * 3
    assert ids.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_inputs_of_a_list_may_be_dicts():
    class Batch(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, batch):
            return {"out": self.head(batch["x"]["here"])}

    assert kr.audit(Batch(), [{"x": {"here": (7, 4)}}]).macs == 7 * 12
    with pytest.raises(ForwardError, match=r"inputs \{x: \{here: \(7, 5\)\}\}"):
        kr.audit(Batch(), [{"x": {"here": (7, 5)}}])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), r"input shape \(\): a tuple"),
        ((3, True), "positive integers"),
        ("3,4", "input shape '3,4'"),
        ([(3, 4), "x"], "input shape 'x'"),
        ({"ids": (0,)}, r"input 'ids' \(0,\)"),
        ([{"a": {"b": 3}}], r"input shape\['a'\]\['b'\] 3"),
    ],
)
def test_what_is_no_input_is_refused_with_its_place(given, said):
    with pytest.raises(ShapeError, match=said):
        kr.audit(Named(), given)


def test_shapes_alone_are_listed_and_nothing_else():
    assert shapes_of((3, 4)) == [(3, 4)]
    assert shapes_of([(3, 4), [5]]) == [(3, 4), (5,)]
    for given in (IDS, [IDS], {"ids": (3,)}, 3):
        with pytest.raises(ShapeError, match="or one for each input"):
            shapes_of(given)


def test_a_shape_where_integers_are_needed_says_what_to_give():
    with pytest.raises(ForwardError, match=r"give a tensor, such as torch.zeros\(1, 77, dtype"):
        kr.audit(Named(), (5,))


# Embeddings


def test_an_embedding_is_a_linear_layer_on_one_hot_vectors_that_costs_nothing():
    model = nn.Sequential(nn.Embedding(20, 64), nn.Linear(64, 48))
    table, _ = layers_of(kr.audit(model, IDS))
    assert (table["kind"], table["K"], table["R"]) == ("embedding", 64, 20)
    assert (table["redundancy"], table["macs"], table["params"]) == ("exact", 0, 20 * 64)
    chain = kr.audit(model, IDS).to_frame().iloc[-1]
    assert (chain["kind"], chain["K"], chain["R"]) == ("linear run of 2", 64, 20)


# Recurrent layers


@pytest.mark.parametrize(
    ("layer", "kind", "K", "R", "weights"),
    [
        (nn.LSTM(5, 7, batch_first=True), "lstm", 7, 5 + 7, 28 * 12),
        (nn.LSTM(5, 7, 2, bidirectional=True), "lstm", 14, 2 * (14 + 7), 56 * (12 + 21)),
        (nn.LSTM(5, 7, proj_size=3), "lstm", 3, 5 + 3, 28 * 8 + 7 * 3),
        (nn.GRU(5, 7, bias=False, batch_first=True), "gru", 7, 5 + 7, 21 * 12),
        (nn.RNN(5, 7, nonlinearity="relu"), "rnn", 7, 7, 7 * 12),
    ],
)
def test_a_recurrent_layer_uses_every_weight_once_a_step(layer, kind, K, R, weights):
    shape = (4, 5) if layer.batch_first else (3, 5)
    steps = 4 if layer.batch_first else 3  # one step of a batch of three is as much
    found = kr.audit(nn.Sequential(layer), shape)
    (row,) = layers_of(found)
    assert (row["name"], row["kind"], row["K"], row["R"]) == ("0", kind, K, R)
    assert (row["naive"], row["macs"]) == (weights, steps * weights)
    assert row["params"] == found.parameters == sum(p.numel() for p in layer.parameters())
    assert found.macs == row["macs"]
    assert found.not_understood == ()


@pytest.mark.parametrize("cell", [nn.LSTMCell(5, 7), nn.GRUCell(5, 7), nn.RNNCell(5, 7)])
def test_a_cell_in_a_loop_is_counted_for_each_step(cell):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = cell

        def forward(self, x):
            state = None
            for step in x.unbind(1):
                state = self.cell(step, state)
            return state

    found = kr.audit(Loop(), (6, 5))
    gates = cell.weight_ih.shape[0]
    assert found.macs == 6 * gates * 12
    assert [row["params"] for row in layers_of(found)] == [found.parameters] * 6


def test_packed_sequences_count_their_steps():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(5, 7, batch_first=True)

        def forward(self, x):
            lengths = torch.tensor([6], device="cpu")
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
            return self.rnn(packed)[1]

    found = kr.audit(Packed(), (6, 5))
    assert found.macs == 6 * 21 * (5 + 7)
    assert found.not_understood == ()


def test_a_recurrent_layer_is_not_linear():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide, self.rnn = nn.Linear(3, 20), nn.GRU(20, 4, batch_first=True)

        def forward(self, x):
            return self.rnn(self.wide(x))[0]

    wide, _ = layers_of(kr.audit(Tagger(), (6, 3)))
    assert (wide["K"], wide["R"], wide["redundancy"]) == (20, 3, "approximate")


def test_a_recurrent_layer_with_a_computed_weight_is_listed():
    class Dropped(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = (nn.Parameter(torch.ones(12, n)) for n in (5, 4))
            self.c = nn.Parameter(torch.ones(12, 4))

        def forward(self, x):
            return torch.gru_cell(x, x.new_zeros(len(x), 4), self.a, self.b * self.c)

    assert kr.audit(Dropped(), (5,)).not_understood == (
        ("", "gru_cell with a reshaped or computed weight"),
    )


# In place


class Written(nn.Module):
    """4 channels to 16, something in between, and a layer that reads them."""

    def __init__(self, between):
        super().__init__()
        self.first, self.wide, self.last = (
            nn.Conv2d(2, 4, 3),
            nn.Conv2d(4, 16, 1),
            nn.Conv2d(16, 3, 1),
        )
        self.between = between

    def forward(self, x):
        return self.last(self.between(self.wide(self.first(x))))


def part_relu(x):
    x[:, :5].relu_()
    return x


def view_relu(x):
    F.relu(x.view(1, -1), inplace=True)
    return x


def whole_buffer(x):
    kept = torch.zeros(x.shape)
    kept.copy_(x)
    return kept


def padded_buffer(x):
    kept = x.new_zeros(1, 16, 9, 9)
    kept[:, :, : x.shape[2], : x.shape[3]] = x
    return kept


def scaled_view(x):
    x.view(1, 16, -1).mul_(2)
    return x


def masked(x):
    x[:, :, 0] = 0
    return x


@pytest.mark.parametrize(
    ("between", "redundancy"),
    [
        (part_relu, "approximate"),
        (view_relu, "approximate"),
        (whole_buffer, "exact"),
        (padded_buffer, "exact"),
        (scaled_view, "exact"),
        (masked, "exact"),
    ],
)
def test_what_is_written_in_place_is_read_from_every_view(between, redundancy):
    found = kr.audit(Written(between), (2, 8, 8))
    assert found.not_understood == ()
    frame = found.to_frame()
    (block,) = frame[frame["level"] == "block"].to_dict("records")
    assert (block["K"], block["R"], block["redundancy"]) == (16, 4, redundancy)


def test_only_what_overlaps_is_written():
    class Halves(nn.Module):
        def forward(self, x):
            left, right = x.chunk(2, 1)
            right.relu_()
            return left, right, x

    found = walk(Halves(), [(4, 3)])
    assert [op.name for op in found.operations] == ["split", "relu_", "slice_scatter"]
    left, right, whole = found.outputs
    assert found.operations[1].outputs == (right,)
    assert left in found.operations[0].outputs
    assert found.operations[2].inputs == (0, right)
    assert found.operations[2].outputs == (whole,)


def test_a_tensor_made_like_a_weight_is_no_weight():
    class Random(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 5, 1)

        def forward(self, x):
            return F.conv2d(x, torch.ones_like(self.conv.weight)) + self.conv(x)

    found = kr.audit(Random(), (2, 3, 3))
    assert [row["name"] for row in layers_of(found)] == ["conv"]
    assert found.not_understood == (("", "convolution with a reshaped or computed weight"),)


def test_a_swish_in_functions_is_an_activation_and_a_gate_is_none():
    def swish(x):
        return x * torch.sigmoid(x)

    def gelu(x):
        return 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.04 * x**3)))

    def gated(x):
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))

    for between, length in ((swish, 2), (gelu, 2), (gated, 3)):
        frame = kr.audit(Written(between), (2, 8, 8)).to_frame()
        assert frame.loc[frame["level"] == "chain", "kind"].tolist() == [f"linear run of {length}"]


# Which axis the channels are on


def last_axis(x):
    return x.permute(0, 2, 3, 1)


def tokens(x):
    return x.flatten(2).transpose(1, 2)


def along_width(x):
    return x


@pytest.mark.parametrize(
    ("before", "C", "redundancy"),
    [(last_axis, 16, "exact"), (tokens, 16, "exact"), (along_width, 8, "approximate")],
)
def test_a_linear_layer_reads_the_channels_only_where_they_are_last(before, C, redundancy):
    """Along another axis it keeps them, and a ReLU behind it is what they meet."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide, self.mix = nn.Conv2d(3, 16, 1), nn.Linear(C, 8)

        def forward(self, x):
            return F.relu(self.mix(before(self.wide(x))))

    found = kr.audit(Mixed(), (3, 8, 8))
    wide, _ = layers_of(found)
    assert (wide["K"], wide["R"], wide["redundancy"]) == (16, 3, redundancy)
    assert (found.to_frame()["level"] == "chain").any() == (redundancy == "exact")


def test_token_mixing_keeps_the_channels_apart():
    """MLP-Mixer: the first layer's channels meet the sum behind the token mixing."""

    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide, self.tokens = nn.Linear(4, 12), nn.Linear(9, 9)

        def forward(self, x):
            x = self.wide(x)
            return x + self.tokens(x.transpose(1, 2)).transpose(1, 2)

    wide, _ = layers_of(kr.audit(Mixer(), (9, 4)))
    assert (wide["redundancy"], wide["also"]) == ("branch only", "approximate")


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_what_cannot_be_watched_says_so():
    inner = nn.Sequential(nn.Conv2d(3, 4, 3))
    for model in (nn.DataParallel(inner), torch.jit.script(inner)):
        with pytest.raises(ForwardError, match="audit the module that it was made of"):
            kr.audit(model, (3, 8, 8))
