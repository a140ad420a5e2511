"""caffe.draw: the DOT text, what it needs, what it refuses. Labels and colours against BVLC: test_pycaffe_recorded."""

from __future__ import annotations

import builtins
import os
import re

import caffe
import pytest
from caffe import draw
from caffe.proto import caffe_pb2, text

NET = """name: "a \\"net\\""
layer { name: "data" type: "Input" top: "data" }
layer { name: "conv<1>" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 8 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" exclude { phase: TEST } }
"""


@pytest.fixture
def net():
    return text.parse(NET, caffe_pb2.NetParameter())


def test_the_text_needs_nothing(net, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    path = tmp_path / "net.dot"
    draw.draw_net_to_file(net, str(path), rankdir="TB", phase=caffe.TRAIN)
    lines = path.read_text().splitlines()
    assert lines[:2] == [r'digraph "a \"net\"" {', "rankdir=TB;"]
    assert (
        r'n2 [label="conv\<1\> (Convolution) kernel size: 3 stride: 1 pad: 0", shape="record", fillcolor="#FF5050", '
        'style="filled"];' in lines
    )
    assert 'n2 -> n3 [label="8"];' in lines
    nodes, arrows = (sum(bool(re.match(what, line)) for line in lines) for what in (r"n\d \[", r"n\d -> "))
    assert (nodes, arrows) == (5, 5)
    assert draw.draw_net(net, "LR", "raw") == draw.draw_net(net, "LR", "gv")


def test_phase_leaves_layers_out(net):
    assert b"relu" in draw.draw_net(net, "LR", "dot")
    assert b"relu" in draw.draw_net(net, "LR", "dot", caffe.TRAIN)
    assert b"relu" not in draw.draw_net(net, "LR", "dot", caffe.TEST)
    net.layer[2].include.add(phase=caffe.TEST)
    with pytest.raises(ValueError, match="'relu' has both include and exclude"):
        draw.draw_net(net, "LR", "dot", caffe.TEST)


def test_lr_mult(net):
    net.layer[1].param.add(lr_mult=0.5)
    assert b"lr mult: 0.5, 1.0" in draw.draw_net(net, "LR", "dot", display_lrm=True)
    net.layer[1].param.add()
    net.layer[1].param.add()
    with pytest.raises(ValueError, match=r"'conv<1>'.*at most two param fields, found 3"):
        draw.draw_net(net, "LR", "dot", display_lrm=True)


def program(folder, script):
    path = folder / "dot"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)


def test_images_come_from_dot(net, tmp_path, monkeypatch):
    program(tmp_path, 'echo "$1"; cat')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    draw.draw_net_to_file(net, tmp_path / "net.svg")
    written = (tmp_path / "net.svg").read_bytes()
    assert written == b"-Tsvg\n" + draw.draw_net(net, "LR", "dot")


def test_what_is_missing_or_wrong_is_named(net, tmp_path, monkeypatch):
    program(tmp_path, 'echo "Format: \\"abc\\" not recognized" >&2; exit 1')
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        with pytest.raises(ValueError, match='cannot draw a abc: Format: "abc" not recognized'):
            draw.draw_net_to_file(net, tmp_path / "net.abc")
        assert not (tmp_path / "net.abc").exists()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match=r"png needs Graphviz's program dot .*apt install graphviz"):
        draw.draw_net(net, "LR")
    with pytest.raises(ValueError, match="rankdir LR, TB, BT or RL, found 'up'"):
        draw.draw_net(net, "up")
    with pytest.raises(ValueError, match="ends in its type"):
        draw.draw_net_to_file(net, "net")


def test_get_pydot_graph_names_the_package(net, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name in ("pydot", "pydotplus"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install pydot"):
        draw.get_pydot_graph(net, "LR")
