"""The layout: how prompts and their responses lie in one row of real tokens, made here and nowhere else.

A batch is a list of groups, each a prompt with its K responses. All tokens stand in one row without padding. Where a
prompt has one response the two are joined into one causal sequence; where it has several, the prompt stands once and
each response attends to it. Attention sees the row through `Grid`s, everything else is computed on real tokens only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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


def _grid(lengths: Sequence[int], device: torch.device) -> Grid:
    width = max(lengths, default=0)
    flat = torch.cat([torch.arange(n) + row * width for row, n in enumerate(lengths)]) if lengths else torch.empty(0)
    return Grid(len(lengths), width, flat.long().to(device))


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
        prompts, responses: the grids of the shared form; in the joined form ``prompts`` is None and ``responses``
            holds prompt and response together.
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
    prompts: Grid | None
    responses: Grid
    prompt_lengths: Tensor
    _masks: dict[int | None, Tensor] = field(default_factory=dict)

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

    def attention_mask(self, window: int | None) -> Tensor:
        """(rows, 1, width, keys) of what each response token may see; ``window``: sliding-window width, None for all.

        In the shared form the keys are the prompt's columns, then the response's own.
        """
        if window not in self._masks:
            device = self.ids.device
            column = torch.arange(self.responses.width, device=device)
            own = column[:, None] - column[None]  # distance from query to key
            seen = (own >= 0) & (own < (window or self.responses.width + 1))
            if self.prompts is None:
                self._masks[window] = seen[None, None]
            else:
                key = torch.arange(self.prompts.width, device=device)
                distance = (self.prompt_lengths[:, None, None] + column[None, :, None]) - key[None, None]
                context = key[None, None] < self.prompt_lengths[:, None, None]
                context = context & (distance < (window or self.prompts.width + self.responses.width + 1))
                self._masks[window] = torch.cat([context, seen.expand(self.responses.rows, -1, -1)], 2)[:, None]
        return self._masks[window]

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
    positions: list[int] = []
    begin: list[int] = []  # row index of each response's first token
    before: list[int] = []  # row index of the prompt token that predicts it
    if shared:
        ends = []
        for g in groups:
            ids.extend(g.prompt)
            positions.extend(range(len(g.prompt)))
            ends.append(len(ids) - 1)
        for i, g in enumerate(groups):
            for r in g.responses:
                begin.append(len(ids))
                before.append(ends[i])
                ids.extend(r)
                positions.extend(range(len(g.prompt), len(g.prompt) + len(r)))
    else:
        for g in groups:
            ids.extend(g.prompt)
            begin.append(len(ids))
            before.append(len(ids) - 1)
            ids.extend(g.responses[0])
            positions.extend(range(len(g.prompt) + len(g.responses[0])))

    row = torch.tensor(ids)
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
    whole = lengths if shared else [p + n for p, n in zip(prompt_lengths, lengths, strict=True)]
    parent = torch.tensor(parents)
    return Layout(
        ids=row.to(device),
        positions=torch.tensor(positions, device=device),
        targets=torch.where(mask, row[token], 0).to(device),
        mask=mask.to(device),
        trained=trained.to(device),
        state=state.to(device),
        token=token.to(device),
        parent=parent.to(device),
        prompts=_grid(prompt_lengths, device) if shared else None,
        responses=_grid(whole, device),
        prompt_lengths=torch.tensor(prompt_lengths)[parent].to(device),
    )
