"""Prototxt is taken and refused as C++'s parser does it that BVLC Caffe reads with."""

from __future__ import annotations

import caffe
import prototxt_cases as cases
import pytest
from caffe.proto import byte_strings, caffe_pb2, text
from google.protobuf import text_format


def net(prototxt: bytes) -> caffe_pb2.NetParameter:
    return text.parse(prototxt, caffe_pb2.NetParameter(), "net.prototxt")


@pytest.mark.parametrize("prototxt, written", cases.TAKEN)
def test_taken(prototxt, written):
    """What BVLC Caffe wrote is read by protobuf's own parser, its octal bytes by the table's."""
    expected = caffe_pb2.NetParameter()
    try:
        text_format.Parse(written, expected)
    except (text_format.ParseError, UnicodeDecodeError):  # Python's takes no string that is not UTF-8
        assert text.to_text(net(prototxt)).split() == written.split()
        return
    assert byte_strings.serialize(net(prototxt)) == expected.SerializeToString()


@pytest.mark.parametrize("prototxt, reason", cases.REFUSED)
def test_refused(prototxt, reason):
    with pytest.raises(text.PrototxtError) as error:
        net(prototxt)
    assert str(error.value).startswith("net.prototxt")
    assert reason in str(error.value).splitlines()[0]


@pytest.mark.parametrize("prototxt, place", [
    (b'name: "a"\nlayer {\n  name: "C:\\data\\new"\n}', "3:12"),
    (b'# \xd6\xd0\xce\xc4\r\nname: "\xd6\xd0\xce\xc4" # \xff\r\n  axis: 1', "3:3"),
    (b"layer {\n\n  name 'a'\n", "3:8"),
    (b"layer { concat_param { axis: 0x } }", "1:30"),
    (b"layer { power_param {\n power: 1\n power: 2 } }", "3:2"),
    (b'\xef\xbb\xbfname: "a"', "1:1"),
    (b'name: "\xe4\xb8\xad" $', "1:13"),  # bytes are counted
])  # fmt: skip
def test_a_refusal_names_the_place(prototxt, place, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_bytes(prototxt)
    with pytest.raises(text.PrototxtError) as error:
        caffe.Net(str(path), caffe.TEST)
    assert f"{path}:{place}: not a valid NetParameter: " in str(error.value)


def test_a_damaged_line_is_shown_without_what_a_terminal_obeys():
    with pytest.raises(text.PrototxtError) as error:
        net(b'name: 5 \x1b[2Jname: "n\xc2\x85\x0cx"\r\n')
    assert len(str(error.value).splitlines()) == 2 and "\x1b" not in str(error.value)


def test_a_path_with_backslashes_is_told_the_remedy():
    remedy = r"Invalid escape.*Found \\d; write a backslash as \\\\, or a path with /"
    with pytest.raises(text.PrototxtError, match=remedy):
        net(rb'name: "C:\data\new"')


def test_numbers_reach_the_field():
    made = net(b"layer { power_param { shift: - 1.5 } concat_param { axis: - 1 } convolution_param { bias_term: 01 } }")
    layer = made.layer[0]
    assert (layer.power_param.shift, layer.concat_param.axis) == (-1.5, -1)
    assert layer.convolution_param.HasField("bias_term") and layer.convolution_param.bias_term is True


@pytest.mark.parametrize("encoding", ["gbk", "latin-1", "shift-jis", "utf-8"])
def test_a_solver_with_comments_of_any_encoding(encoding, tmp_path):
    """Comments, and a path in it that is the file's own."""
    words = "caf\u00e9" if encoding == "latin-1" else "\u6a21\u578b"
    files = {
        "net": 'layer { name: "i" type: "Input" top: "i" input_param { shape { dim: 1 } } }',
        "solver": f'net: "{tmp_path}/net.prototxt" base_lr: 1 lr_policy: "fixed" solver_mode: CPU',
    }
    for name, prototxt in files.items():
        content = f"# {words}\n{prototxt} # {words}".encode(encoding)
        (tmp_path / f"{name}.prototxt").write_bytes(content)
    assert caffe.get_solver(str(tmp_path / "solver.prototxt")).net.layer_dict["i"].type == "Input"
