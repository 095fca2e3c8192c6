"""Opening imagery: nodata, scale and masks, and a sentence for every file that is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from cubes import opened, refused
from rasters import noise, write

from pipeline.errors import ReadError
from pipeline.grid import whole

# ---- nodata, scale, masks


def test_missing_nodata_is_said_once(tmp_path):
    for i in range(5):
        write(tmp_path / f"B{i}.tif", noise(1, 20, 20))
    notes = [n for n in opened(tmp_path / "B*.tif")[1] if "nodata" in n]
    assert notes == [
        "B0.tif, B1.tif, B2.tif and 2 more: no nodata value is declared; every pixel counts as valid (set `nodata` if not so)"
    ]


def test_nodata_that_cannot_be_is_said(tmp_path):
    path = str(write(tmp_path / "a.tif", noise(1, 20, 20, "uint8", most=200)))
    cube, notes = opened({"path": path, "nodata": -9999})
    assert "a.tif (uint8, nodata -9999): no pixel can have that nodata value" in notes[0]
    assert cube.read(whole(cube.geobox)).valid.all()


def test_the_files_scale_is_taken_and_the_jobs_wins(tmp_path):
    stored = noise(2, 20, 20)
    path = str(write(tmp_path / "a.tif", stored, nodata=0, scales=(0.1, 0.5), offsets=(0, -1)))
    cube, _ = opened(path)
    expected = stored * np.float32([0.1, 0.5])[:, None, None] + np.float32([0, -1])[:, None, None]
    np.testing.assert_allclose(cube.read(whole(cube.geobox)).values[0], expected, rtol=1e-6)
    own, _ = opened({"path": path, "scale": 2, "offset": 1})
    np.testing.assert_allclose(own.read(whole(cube.geobox)).values[0], stored * 2.0 + 1)


def test_masks_are_matched_by_date(tmp_path):
    for day in ("19991118", "20020416"):
        write(tmp_path / f"s_{day}.tif", noise(2, 20, 20), nodata=0)
    for day, row in (("20020416", 3), ("19991118", 9), ("20100101", 0)):
        mask = np.zeros((1, 20, 20), "uint8")
        mask[0, row] = 8
        write(tmp_path / f"m_{day}.tif", mask)
    entry = {
        "path": str(tmp_path / "s_*.tif"),
        "date": "%Y%m%d",
        "mask": {"path": str(tmp_path / "m_*.tif"), "exclude": [8]},
    }
    cube, _ = opened(entry)
    invalid = ~cube.read(whole(cube.geobox)).valid
    assert [np.unique(np.nonzero(t)[0]).tolist() for t in invalid] == [[9], [3]]
    (tmp_path / "m_19991118.tif").unlink()
    (tmp_path / "m_20100102.tif").write_bytes((tmp_path / "m_20100101.tif").read_bytes())
    assert "imagery.mask.path: no mask for 1999-11-18" in refused(entry)
    wrong = entry | {"mask": {"path": str(tmp_path / "m_20020416.tif"), "band": 2, "exclude": [8]}}
    assert "imagery.mask.band is 2, and" in refused(wrong)


# ---- files


def test_files_that_are_not_there(tmp_path):
    write(tmp_path / "scene_1999.tif", noise(1, 9, 9))
    assert "there is no such file; did you mean 'scene_1999.tif'?" in refused(tmp_path / "scene_1998.tif")
    assert "matches no file; did you mean 'scene_1999.tif'?" in refused(tmp_path / "scene_200*.tif")
    assert "the folder" in refused(tmp_path / "nowhere" / "a.tif")
    assert "it is a folder: give its files" in refused(tmp_path)
    assert "the list is empty" in refused({"path": []})


def test_sidecars_are_no_rasters(tmp_path):
    write(tmp_path / "s.tif", noise(2, 70, 70), nodata=0)
    for name in ("s.tif.aux.xml", "s.tif.ovr", "s.tfw"):
        (tmp_path / name).write_text("")
    (tmp_path / "s.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")
    (tmp_path / "s.tif.ovr").unlink()
    assert opened(tmp_path / "s*")[0].bands == ("band_1", "band_2")
    (tmp_path / "s.txt").write_text("no raster")
    assert "s.txt cannot be opened as a raster" in refused(tmp_path / "s*")


def test_a_vrt_must_say_so_in_its_name(tmp_path):
    write(tmp_path / "a.tif", noise(1, 9, 9), nodata=0)
    text = (
        '<VRTDataset rasterXSize="9" rasterYSize="9"><SRS>EPSG:32633</SRS>'
        '<GeoTransform>500000, 10, 0, 5000000, 0, -10</GeoTransform><VRTRasterBand dataType="UInt16" band="1">'
        '<SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    (tmp_path / "honest.vrt").write_text(text)
    assert opened(tmp_path / "honest.vrt")[0].shape == (1, 1, 9, 9)
    (tmp_path / "disguised.tif").write_text(text)
    assert "it is a VRT, which names other files, under another name" in refused(tmp_path / "disguised.tif")


def test_a_damaged_file_is_named(tmp_path):
    path = write(tmp_path / "a.tif", noise(2, 256, 256), tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ReadError, match=r"a\.tif: reading rows .* failed .*damaged or truncated"):
        opened(path)


def test_pieces_too_large_to_decode_are_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif", noise(1, 256, 256), tiled=True, blockxsize=256, blockysize=256)
    monkeypatch.setattr("pipeline.imagery.handles.memory_budget", lambda: 256 * 256 * 2 * 9)
    assert "a.tif is stored in pieces of 256 x 256 pixels" in refused(path)
    monkeypatch.setattr("pipeline.imagery.handles.memory_budget", lambda: 256 * 256 * 2 * 11)
    opened(path)


def test_complex_numbers_are_refused(tmp_path):
    path = write(tmp_path / "a.tif", np.ones((1, 9, 9), "complex64"))
    assert "band 1 holds complex numbers (complex64)" in refused(path)
