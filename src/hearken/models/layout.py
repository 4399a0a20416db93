"""The layout: how prompts and their responses lie in one row of real tokens, made here and nowhere else.

A batch is a list of groups, each a prompt with its K responses. All tokens stand in one row without padding. Where a
prompt has one response the two are joined into one causal sequence; where it has several, the prompt stands once and
each response attends to it. Attention sees the row through `Grid`s, everything else is computed on real tokens only.
The longest stand first, so that attention can go over `Block`s of alike lengths and pad little.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt's token ids with the token ids of its responses.

    ``masks[k][t]`` says whether token t of response k is trained on (all, where None): a dialogue in which several
    assistant turns are trained has the first prompt as ``prompt`` and the rest as one response with holes. ``weight``
    is what imitating it counts in the loss.
    """

    prompt: Sequence[int]
    responses: Sequence[Sequence[int]]
    masks: Sequence[Sequence[bool]] | None = None
    weight: float = 1.0

    @property
    def tokens(self) -> int:
        """Real tokens, the prompt counted once."""
        return len(self.prompt) + sum(len(r) for r in self.responses)

    @property
    def trained_tokens(self) -> int:
        """Response tokens that are trained on."""
        return sum(map(len, self.responses)) if self.masks is None else sum(map(sum, self.masks))


@dataclass(frozen=True)
class Grid:
    """A right-padded (rows, width) grid; ``flat`` (n,) holds the cell of each of n real tokens."""

    rows: int
    width: int
    flat: Tensor

    def spread(self, x: Tensor) -> Tensor:
        """(n, heads, d) real tokens -> (rows, heads, width, d), zeros in the padding."""
        cells = x.new_zeros(self.rows * self.width, *x.shape[1:]).index_copy(0, self.flat, x)
        return cells.view(self.rows, self.width, *x.shape[1:]).transpose(1, 2)

    def gather(self, x: Tensor) -> Tensor:
        """(rows, heads, width, d) -> (n, heads, d)."""
        return x.transpose(1, 2).reshape(self.rows * self.width, x.shape[1], x.shape[3])[self.flat]


def _grid(lengths: Sequence[int], order: Sequence[int], device: torch.device) -> Grid:
    """Rows of these lengths whose tokens stand in ``order``."""
    width = max(lengths)
    flat = torch.cat([torch.arange(lengths[row]) + row * width for row in order])
    return Grid(len(lengths), width, flat.to(device))


@dataclass(frozen=True)
class Block:
    """Sequences of alike length, which attention takes together.

    Attributes:
        grid: the cells of their tokens, which stand together in the row.
        parent: (rows,) the prompt that each goes on from in the shared form; None where sequences are whole.
        context: (rows,) length of that prompt; of no matter where there is none.
        reach: the longest of these lengths; 0 where there is none.
    """

    grid: Grid
    parent: Tensor | None
    context: Tensor
    reach: int
    _masks: dict[int | None, Tensor] = field(default_factory=dict)

    def mask(self, window: int | None) -> Tensor | None:
        """(rows|1, 1, width, reach + width) of what each token may see: the prompt's columns, then its own sequence's.

        None where that is all that came before. ``window``: sliding-window width, None for all.
        """
        width = self.grid.width
        if window is None or window >= self.reach + width:
            window = None
            if self.parent is None:
                return None
        if window not in self._masks:
            column = torch.arange(width, device=self.grid.flat.device)
            own = column[:, None] - column[None]  # distance from query to key
            seen = ((own >= 0) & (own < (window or width)))[None]
            if self.parent is not None:
                key, context = torch.arange(self.reach, device=column.device), self.context[:, None, None]
                distance = context + column[:, None] - key
                near = (key < context) & (distance < (window or self.reach + width))
                seen = torch.cat([near, seen.expand(self.grid.rows, -1, -1)], 2)
            self._masks[window] = seen[:, None]
        return self._masks[window]


@dataclass(frozen=True)
class Layout:
    """One row of N real tokens holding P prompts and R responses of at most T tokens.

    Attributes:
        ids, positions: (N,) token ids and positions.
        targets: (R, T) response token ids, 0 in the padding.
        mask: (R, T) which cells are response tokens.
        trained: (R, T) which of them the loss counts (a subset of ``mask``).
        state: (R, T) index in the row of the token *before* each response token: it predicts that token.
        token: (R, T) index in the row of each response token itself.
        parent: (R,) the group of each response.
        whole: the grid of all prompts in the shared form, of all sequences (prompt and response) in the joined form.
        prompts: the prompts of the shared form, else None.
        blocks: of the shared form the responses, of the joined form the sequences; the longest first. The row is
            ``prompts``, then these.
        prompt_lengths: (R,) length of the prompt of each response.
    """

    ids: Tensor
    positions: Tensor
    targets: Tensor
    mask: Tensor
    trained: Tensor
    state: Tensor
    token: Tensor
    parent: Tensor
    whole: Grid
    prompts: Block | None
    blocks: list[Block]
    prompt_lengths: Tensor

    @property
    def lengths(self) -> Tensor:
        """(R,) tokens of each response."""
        return self.mask.sum(1)

    @property
    def last(self) -> Tensor:
        """(R,) index in the row of each response's last token."""
        return self.token.gather(1, (self.lengths - 1).clamp_min(0)[:, None])[:, 0]

    def grid(self, values: Tensor) -> Tensor:
        """Values of the masked cells, in row-major order, -> (R, T), zeros in the padding."""
        return values.new_zeros(self.mask.shape).masked_scatter(self.mask, values)

    def sequences(self) -> list[Group]:
        """Every response as a group of its own, in order."""
        row, found = self.ids.tolist(), []
        cells = zip(self.state[:, 0].tolist(), self.prompt_lengths.tolist(), self.token.tolist(), self.lengths.tolist(),
                    strict=True)  # fmt: skip
        for last, before, token, n in cells:
            found.append(Group(row[last - before + 1 : last + 1], [[row[i] for i in token[:n]]]))
        return found

    def apart(self) -> Layout:
        """The same responses, each joined with its prompt: where what is said of a prompt depends on what follows."""
        if self.prompts is None:
            return self
        return replace(lay_out(self.sequences(), self.ids.device), trained=self.trained)

    def split(self, keys: Sequence[Hashable]) -> Iterator[tuple[Layout, Tensor]]:
        """The responses with the same key together, of a layout whose sequences lie `apart`.

        Args:
            keys: one a response.

        Yields:
            A layout, and (n,) where each token of its row stands in this one's.
        """
        sequences, begin = self.sequences(), self.state[:, 0] - self.prompt_lengths + 1
        for key in dict.fromkeys(keys):
            rows = [r for r, own in enumerate(keys) if own == key]
            part = lay_out([sequences[r] for r in rows], self.ids.device)
            where = torch.empty_like(part.ids)
            starts = (part.state[:, 0] - part.prompt_lengths + 1).tolist()
            lengths = (part.prompt_lengths + part.lengths).tolist()
            for start, n, first in zip(starts, lengths, begin[rows].tolist(), strict=True):
                where[start : start + n] = torch.arange(first, first + n, device=where.device)
            yield part, where

    def padded(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same batch as ordinary right-padded sequences, for models that cannot be packed.

        Returns:
            ids (R, S), attention mask (R, S), and (N,) the cell of each token of the row (a shared prompt: first copy).
        """
        lengths, rows = self.lengths.tolist(), self.mask.shape[0]
        starts = self.prompt_lengths.tolist()
        width = max(p + n for p, n in zip(starts, lengths, strict=True))
        ids = self.ids.new_zeros(rows, width)
        keep = torch.zeros(rows, width, dtype=torch.long, device=self.ids.device)
        source = torch.zeros_like(self.ids)
        for r in reversed(range(rows)):  # so that the first copy of a prompt is written last
            p, n = starts[r], lengths[r]
            first = int(self.state[r, 0]) - p + 1
            where = torch.cat([torch.arange(first, first + p, device=self.ids.device), self.token[r, :n]])
            ids[r, : p + n] = self.ids[where]
            keep[r, : p + n] = 1
            source[where] = torch.arange(p + n, device=self.ids.device) + r * width
        return ids, keep, source


ALIKE, WORTH = 0.8, 256
"""A block's shortest sequence against its longest; cells that a block needs to be worth calls of its own."""


def _alike(lengths: Sequence[int], order: Sequence[int]) -> Iterator[list[int]]:
    """Rows, the longest first, in blocks of alike length."""
    block: list[int] = []
    for row in order:
        if block and lengths[row] < ALIKE * lengths[block[0]] and len(block) * lengths[block[0]] >= WORTH:
            yield block
            block = []
        block.append(row)
    yield block


def _block(lengths: Sequence[int], parent: Tensor | None, context: Tensor) -> Block:
    reach = 0 if parent is None else int(context.max())
    return Block(_grid(lengths, range(len(lengths)), context.device), parent, context, reach)


def lay_out(groups: Sequence[Group], device: torch.device | str = "cpu") -> Layout:
    """Lay groups out in one row.

    Every prompt and every response needs at least one token; only where every group's one response is empty does the
    row hold prompts alone (what a sampler starts from: ``state[:, 0]`` is then each prompt's last token).
    """
    device = torch.device(device)
    prompt_lengths = [len(g.prompt) for g in groups]
    lengths = [len(r) for g in groups for r in g.responses]
    parents = [i for i, g in enumerate(groups) for _ in g.responses]
    shared = any(len(g.responses) != 1 for g in groups)
    alone = not shared and not any(lengths)
    if not lengths or min(prompt_lengths) == 0 or (min(lengths) == 0 and not alone):
        raise ValueError("every group needs a prompt and responses of at least one token")
    ids: list[int] = []
    ends: list[int] = []  # row index of each shared prompt's last token
    positions: list[int] = []
    begin = [0] * len(lengths)  # row index of each response's first token
    before = [0] * len(lengths)  # row index of the prompt token that predicts it
    responses = [r for g in groups for r in g.responses]
    sequences = lengths if shared else [p + n for p, n in zip(prompt_lengths, lengths, strict=True)]
    order = sorted(range(len(sequences)), key=lambda row: -sequences[row])
    if shared:
        for g in groups:
            ids.extend(g.prompt)
            positions.extend(range(len(g.prompt)))
            ends.append(len(ids) - 1)
    for r in order:
        prompt, response = groups[parents[r]].prompt, responses[r]
        if not shared:
            ids.extend(prompt)
            positions.extend(range(len(prompt)))
        begin[r], before[r] = len(ids), ends[parents[r]] if shared else len(ids) - 1
        ids.extend(response)
        positions.extend(range(len(prompt), len(prompt) + len(response)))

    row = torch.tensor(ids)
    parent = torch.tensor(parents, device=device)
    before_each = torch.tensor(prompt_lengths, device=device)[parent]
    whole = _grid(prompt_lengths, range(len(groups)), device) if shared else _grid(sequences, order, device)
    width = max(*lengths, 1)
    column = torch.arange(width)
    mask = column[None] < torch.tensor(lengths)[:, None]
    token = torch.where(mask, torch.tensor(begin)[:, None] + column[None], 0)
    state = (token - 1).clamp_min(0)
    state[:, 0] = torch.tensor(before)
    trained = mask.clone()
    if any(g.masks is not None for g in groups):
        flags = [m for g in groups for m in (g.masks or [[True] * len(r) for r in g.responses])]
        for row_number, flag in enumerate(flags):
            trained[row_number, : len(flag)] &= torch.tensor(flag, dtype=torch.bool)
    return Layout(
        ids=row.to(device),
        positions=torch.tensor(positions, device=device),
        targets=torch.where(mask, row[token], 0).to(device),
        mask=mask.to(device),
        trained=trained.to(device),
        state=state.to(device),
        token=token.to(device),
        parent=parent,
        whole=whole,
        prompts=_block(prompt_lengths, None, before_each) if shared else None,
        blocks=[
            _block([sequences[r] for r in rows], parent[rows] if shared else None, before_each[rows])
            for rows in _alike(sequences, order)
        ],
        prompt_lengths=before_each,
    )
