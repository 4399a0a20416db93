"""Files that responses are: named by what they hold, told by their first bytes, never outside their folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from hearken.errors import UserError
from hearken.feedback.media import OTHER, Media, MediaFolder, shown_type, sniff

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16
WAV = b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 16
WEBM = b"\x1aE\xdf\xa3" + b"\0" * 16
MP4 = b"\0\0\0\x18ftypmp42" + b"\0" * 16


@pytest.mark.parametrize(
    ("data", "kind", "viewer"),
    [
        (PNG, "image/png", "image"), (WAV, "audio/wav", "audio"), (WEBM, "video/webm", "video"),
        (MP4, "video/mp4", "video"), (b"<svg onload='alert(1)'/>", OTHER, "text"), (b"<html>", OTHER, "text"),
        (b"RIFF\x24\0\0\0AVI LIST", OTHER, "text"), (b"", OTHER, "text"),
    ],
)  # fmt: skip
def test_first_bytes_say_what_it_is(tmp_path: Path, data: bytes, kind: str, viewer: str) -> None:
    media = MediaFolder(tmp_path).keep(data, ".npz")
    assert (sniff(data[:16]), media.type, media.viewer) == (kind, kind, viewer)
    path = tmp_path / media.path
    assert path.read_bytes() == data and path.suffix == (".npz" if kind == OTHER else path.suffix)
    if kind == OTHER:
        with pytest.raises(UserError, match="no file that can be shown"):
            shown_type(path)
    else:
        assert shown_type(path) == kind


def test_equal_files_are_one_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    folder = MediaFolder(tmp_path)
    media = folder.keep(WAV)
    assert folder.keep(WAV) == media and len(list((tmp_path / "media").rglob("*.wav"))) == 1
    assert folder.read(media) == WAV
    (tmp_path / media.path).write_bytes(WAV + b"!")
    with pytest.raises(UserError, match="was changed"):
        folder.read(media)
    with pytest.raises(UserError, match="no such file"):
        folder.read(Media("media/ab/none.wav"))


def test_nothing_outside_is_read_or_deleted(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PNG)
    project = tmp_path / "project"
    (project / "media").mkdir(parents=True)
    (project / "notes.png").write_bytes(PNG)
    (project / "media" / "link.png").symlink_to(tmp_path / "secret.png")
    folder = MediaFolder(project)
    for path in ("../secret.png", "media/link.png", str(tmp_path / "secret.png"), "media", "."):
        assert folder.find(Media(path)) is None
    assert folder.delete([Media("notes.png"), Media("../secret.png")]) == 0 and (project / "notes.png").exists()


def test_deleting_takes_what_was_made_of_it(tmp_path: Path) -> None:
    folder = MediaFolder(tmp_path)
    clip, other = folder.keep(b"steps", ".npz"), folder.keep(PNG)
    (tmp_path / clip.path).with_suffix(".webm").write_bytes(WEBM)
    assert folder.delete([clip, clip]) == 2 and folder.find(clip) is None and folder.find(other)


def test_a_data_file_finds_its_media(tmp_path: Path) -> None:
    MediaFolder(tmp_path).keep(PNG)
    assert MediaFolder.beside(tmp_path / "pairs.jsonl").root == tmp_path
    assert MediaFolder.beside(tmp_path / "snapshots" / "some.parquet").root == tmp_path
    copy = MediaFolder(tmp_path / "copy")
    (media,) = [Media(str(p.relative_to(tmp_path))) for p in (tmp_path / "media").rglob("*.png")]
    assert MediaFolder(tmp_path).copy_to(copy, [media, Media("media/gone.png")]) == 1 and copy.read(media) == PNG
