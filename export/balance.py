"""The same function in weights as training leaves them.

Calibration makes channels larger here and smaller there (calibrate.py). That changes no translation, but what a step of
training does: Muon's steps have a size of their own, whatever the size of the matrix. Here the two sides of a channel
become equally large again, and normalisations that only products read get a gain of one. Knows: which weights make and
read which channels. Does not know: bundles, training.
"""

import torch
from torch import Tensor

from export.calibrate import OUTPUT, Site, sites
from model.transformer import Transformer

State = dict[str, Tensor]


@torch.no_grad()
def balance(model: Transformer) -> None:
    """Changes the weights and nothing that the model computes, but for rounding."""
    state: State = {name: values.double() for name, values in model.state_dict().items()}
    # The last product's matrix is the embedding, too.
    found = [site for site in sites(model) if site.makers and OUTPUT not in site.readers]
    for site in found:
        if state[site.makers[0]].dim() == 1:
            rescale(state, site, 1 / guarded(state[site.makers[0]]))
    for site in found:
        if state[site.makers[0]].dim() == 2:
            read = torch.cat([state[f"{name}.weight"] for name in site.readers]).norm(dim=0)
            rescale(state, site, (guarded(read) / guarded(rows(state, site.makers[0]))).sqrt())
    for stem in (name.removesuffix(".query.weight") for name in state if name.endswith(".query.weight")):
        query, key = (rows(state, f"{stem}.{part}.weight") for part in ("query", "key"))
        factors = (guarded(key) / guarded(query)).sqrt()
        for part, by in (("query", factors), ("key", 1 / factors)):  # a channel of one meets the same of the other
            scale_rows(state, (f"{stem}.{part}.weight", f"{stem}.{part}.bias"), by)
    model.load_state_dict(state)


def rescale(state: State, site: Site, factors: Tensor) -> None:
    """Channels times ``factors`` where they are made, divided by them where they are read."""
    scale_rows(state, site.makers, factors)
    for name in site.readers:
        state[f"{name}.weight"] = state[f"{name}.weight"] / factors


def scale_rows(state: State, names: tuple[str, ...], factors: Tensor) -> None:
    for name in names:
        state[name] = state[name] * (factors[:, None] if state[name].dim() == 2 else factors)


def rows(state: State, name: str) -> Tensor:
    return state[name].norm(dim=1)


def guarded(sizes: Tensor) -> Tensor:
    """One for a channel that is next to nothing, which would be all rounding once it is made larger."""
    return torch.where(sizes.abs() < 1e-4 * sizes.abs().max(), torch.ones_like(sizes), sizes)
