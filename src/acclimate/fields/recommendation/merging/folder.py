"""Merged models as one folder."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from acclimate.core.storage import sync_folder
from acclimate.fields.recommendation.merging.index import Index, digest_of, read_index, write_index
from acclimate.fields.recommendation.merging.member import check_member, load_member, save_member
from acclimate.fields.recommendation.merging.merged import Merged, merge

__all__ = ["check_member", "load_member", "load_merged", "read_index", "save_member", "save_merged"]


def save_merged(model: Merged, folder: str | Path) -> Path:
    """Write each member's weights, how they are built, and how they are merged.

    Files are named by what they hold, and the index comes last, so that a folder that held another model holds that one
    or this one, whole, whenever writing ends. Then files of the former are removed: a panel that serves them needs a
    folder that stays. One writer at a time.
    """
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    members = dict(_written(member, folder, place) for place, member in enumerate(model.members))
    sync_folder(folder)
    write_index(Index(folder, model.how, model.weights.detach().cpu(), members))
    for pattern in ("member-*.safetensors", ".member-*"):
        for path in folder.glob(pattern):
            if path.name not in members:
                path.unlink(missing_ok=True)
    return folder


def _written(member: nn.Module, folder: Path, place: int) -> tuple[str, str]:
    draft = folder / f".member-{place}-{secrets.token_hex(8)}.safetensors"
    save_member(member, draft)
    digest = digest_of(draft)
    name = f"member-{place}-{digest[:16]}.safetensors"
    draft.replace(folder / name)
    return name, digest


def load_merged(folder: str | Path, members: Sequence[nn.Module] | None = None) -> Merged:
    """What `save_merged` wrote, with the same bits.

    Arguments: `members`, models of the same architectures, in their order, whose weights are filled in place; needed
    unless all are from `build`.

    Raises FileNotFoundError for a folder without an index or a member's file, ValueError for files that cannot be read
    or were altered, and where members are needed or of other number or architecture.
    """
    index = read_index(folder)
    if members is not None and len(members) != len(index.members):
        raise ValueError(f"found {len(members)} members, expected the {len(index.members)} that {folder} holds.")
    for path, digest in zip(index.paths(), index.members.values(), strict=True):
        if not path.is_file():
            raise FileNotFoundError(f"there is no {path}, which the index names. Save the merged model anew.")
        if digest_of(path) != digest:
            raise ValueError(f"{path} does not match its checksum in the index; it was altered or damaged.")
    given: Sequence[nn.Module | None] = members or [None] * len(index.members)
    merged = merge(
        [load_member(path, each) for path, each in zip(index.paths(), given, strict=True)],
        index.how,
        weights=index.given(),
    )
    merged.weights = index.weights  # the same bits, not divided by their sum once more
    return merged
