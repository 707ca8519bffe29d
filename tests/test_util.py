"""Helpers: what each one promises, equivalent and invalid inputs, and that importing the package stays light."""

from __future__ import annotations

import functools
import json
import logging
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from sentence_transformers import util
from sentence_transformers.errors import InputError, ModelFormatError, UntrustedCodeError
from sentence_transformers.util import distributed, environment, misc, tensor

ANSWERS = json.loads((Path(__file__).parent / "golden" / "search.json").read_text())
X = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0], [1.0, -2.0, 2.0]])


# The package


def test_every_public_name_exists():
    assert util.__all__ == sorted(set(util.__all__))
    for name in util.__all__:
        assert getattr(util, name) is not None
        assert name in dir(util)
    with pytest.raises(AttributeError, match="nonsense"):
        util.nonsense  # noqa: B018


def test_importing_util_imports_no_torch():
    code = "import sys, sentence_transformers.util; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# Tensors


@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_coo])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_normalize(layout, dtype):
    embeddings = X.to(dtype).to_sparse() if layout == torch.sparse_coo else X.to(dtype)
    unit = util.normalize_embeddings(embeddings)
    assert (unit.layout, unit.dtype) == (layout, dtype)
    expected = np.array([[0.6, 0.8, 0], [0, 0, 0], [1 / 3, -2 / 3, 2 / 3]])
    np.testing.assert_allclose(unit.to_dense().double(), expected, atol=4e-3 if dtype == torch.bfloat16 else 1e-7)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
def test_normalize_other_shapes():
    one = torch.tensor([0.6, 0.8, 0.0])
    torch.testing.assert_close(util.normalize_embeddings(X[0]), one)
    torch.testing.assert_close(util.normalize_embeddings(X[None])[0, 0], one)
    torch.testing.assert_close(util.normalize_embeddings(X[0].to_sparse()).to_dense(), one)
    csr = util.normalize_embeddings(X.to_sparse_csr())
    assert csr.layout == torch.sparse_csr
    torch.testing.assert_close(csr.to_dense(), util.normalize_embeddings(X))
    repeated = torch.sparse_coo_tensor([[0, 0, 0], [1, 1, 2]], [1.0, 2.0, 4.0], (1, 3), check_invariants=True)
    torch.testing.assert_close(util.normalize_embeddings(repeated).to_dense(), torch.tensor([[0.0, 0.6, 0.8]]))


@pytest.mark.parametrize("dim, width", [(2, 2), (None, 3), (9, 3), (0, 0)])
def test_truncate(dim, width):
    for embeddings in (X, X.numpy()):
        found = util.truncate_embeddings(embeddings, dim)
        assert type(found) is type(embeddings)
        np.testing.assert_array_equal(found, X.numpy()[:, :width])


def test_select_max_active_dims():
    expected = [[0, 4, 0], [0, 0, 0], [0, -2, 0]]
    before = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0], [1.0, -2.0, 1.5]])
    embeddings = before.clone()
    assert util.select_max_active_dims(embeddings, 1).tolist() == expected
    assert util.select_max_active_dims(embeddings.numpy(), 1).tolist() == expected
    assert torch.equal(embeddings, before)
    assert util.select_max_active_dims(embeddings[0], 1).tolist() == expected[0]
    for everything in (None, 3, 7):
        assert torch.equal(util.select_max_active_dims(embeddings, everything), before)
    assert (util.select_max_active_dims(torch.ones(2, 5), 3) != 0).sum(1).tolist() == [3, 3]
    for wrong in (0, -1):
        with pytest.raises(InputError, match="positive"):
            util.select_max_active_dims(embeddings, wrong)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
def test_count_vector():
    for embeddings in (X, X.to_sparse(), X.to_sparse_csr()):
        counts = util.compute_count_vector(embeddings)
        assert (counts.tolist(), counts.dtype) == ([2, 2, 1], torch.int32)
    assert util.compute_count_vector(X[0]).tolist() == [1, 1, 0]
    stored_zero = torch.sparse_coo_tensor([[0, 0], [0, 1]], [0.0, 1.0], (1, 3), check_invariants=True)
    assert util.compute_count_vector(stored_zero).tolist() == [0, 1, 0]
    with pytest.raises(InputError):
        util.compute_count_vector(X[None])


def test_scipy_matrix():
    for embeddings in (X.to_sparse(), X, X.clone().requires_grad_(), X.bfloat16().to_sparse()):
        matrix = util.to_scipy_coo(embeddings)
        assert (matrix.format, matrix.dtype, matrix.nnz) == ("coo", np.float32, 5)
        np.testing.assert_array_equal(matrix.toarray(), X)


def test_batch_to_device_is_in_place():
    batch = {"a": X, "b": "text", "c": [X]}
    assert util.batch_to_device(batch, torch.device("meta")) is batch
    assert (batch["a"].device.type, batch["c"][0].device.type, batch["b"]) == ("meta", "cpu", "text")


def test_move_tensors_to_cpu_keeps_the_nest():
    moved = util._move_tensors_to_cpu({"a": X, "b": [X, (X, 1)], "c": "text"})
    assert torch.equal(moved["b"][1][0], X)
    assert (type(moved["b"]), type(moved["b"][1]), moved["b"][1][1], moved["c"]) == (list, tuple, 1, "text")


def test_conversion_keeps_the_dtype():
    for a, dtype in (([[1, 2]], torch.int64), (np.ones((1, 2)), torch.float64), (X.half(), torch.float16)):
        assert util._convert_to_tensor(a).dtype == dtype
    assert util._convert_to_batch_tensor([1.0, 2.0]).shape == (1, 2)
    assert util._convert_to_batch(X) is X
    assert tensor.to_float(X.half()).dtype == torch.float32
    with pytest.raises(InputError, match="list of length 2"):
        util._convert_to_tensor([[1.0], [1.0, 2.0]])


def test_writable_arrays_are_not_copied():
    array = np.zeros(3, dtype=np.float32)
    tensor.to_tensor(array)[0] = 7
    assert array[0] == 7


def test_take_rows():
    for start, stop in ((0, 2), (1, 9), (3, 5)):
        assert torch.equal(tensor.take_rows(X.to_sparse(), start, stop).to_dense(), X[start:stop])
        assert torch.equal(tensor.take_rows(X, start, stop), X[start:stop])


def test_padded_token_embeddings_are_joined():
    embeddings = [torch.ones(2, 1, 4), torch.full((2, 3, 4), 2.0)]
    masks = [torch.ones(2, 1).bool(), torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()]
    rows = [[1, 0, 0], [2, 2, 2]]
    stacked, mask = util.stack_padded_token_embeddings(embeddings, masks)
    assert stacked[..., 0].tolist() == [rows, rows]
    assert mask.int().tolist() == [[[1, 0, 0], [1, 1, 0]], [[1, 0, 0], [1, 1, 1]]]
    joined, mask = util.cat_padded_token_embeddings(embeddings, masks)
    assert joined[..., 0].tolist() == [rows[0], rows[0], rows[1], rows[1]]
    assert mask.int().tolist() == [[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert mask.dtype == torch.bool
    for arguments in (([], []), (embeddings, masks[:1])):
        with pytest.raises(InputError):
            util.cat_padded_token_embeddings(*arguments)


def test_flattened_batch_is_padded():
    offsets = torch.tensor([0, 2, 5], dtype=torch.int32)
    features = {
        "input_ids": torch.arange(1, 6)[None],
        "position_ids": torch.tensor([[0, 1, 0, 1, 2]]),
        "token_embeddings": torch.arange(1.0, 11).reshape(1, 5, 2),
        **dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), offsets),
        **dict.fromkeys(("max_length_q", "max_length_k"), 3),
        "modality": "text",
    }
    padded = util.repad_flattened_features(features)
    assert padded is features
    assert sorted(padded) == ["attention_mask", "input_ids", "modality", "token_embeddings"]
    assert padded["input_ids"].tolist() == [[1, 2, 0], [3, 4, 5]]
    assert padded["attention_mask"].tolist() == [[True, True, False], [True, True, True]]
    assert padded["token_embeddings"].tolist() == [[[1, 2], [3, 4], [0, 0]], [[5, 6], [7, 8], [9, 10]]]
    assert util.repad_flattened_features(padded) is padded and padded["input_ids"].shape == (2, 3)


# Names and classes


class Callable:
    def __call__(self):
        """Nothing."""


@pytest.mark.parametrize(
    "thing, name",
    [
        (torch.nn.Linear, "torch.nn.modules.linear.Linear"),
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (3, "int"),
        (int, "int"),
        (Callable(), f"{__name__}.Callable"),
    ],
)
def test_fullname(thing, name):
    assert util.fullname(thing) == name


@pytest.mark.parametrize(
    "function, name",
    [
        (util.cos_sim, "cos_sim"),
        (Callable(), "Callable"),
        (Callable, "Callable"),
        (functools.partial(util.maxsim), "maxsim"),
        (
            functools.partial(functools.partial(util.maxsim, a_mask=1), chunk_elements=2),
            "maxsim(a_mask=1, chunk_elements=2)",
        ),
    ],
)
def test_similarity_fct_name(function, name):
    assert util.similarity_fct_name(function) == name


def test_import_from_string():
    assert util.import_from_string("torch.nn.GELU") is torch.nn.GELU
    assert util.import_from_string("sentence_transformers.similarity.cos_sim") is util.cos_sim
    for path in ("nope", "", "a.", "nope.x", "torch.nope", "torch.nn", "sentence_transformers.nope.X"):
        with pytest.raises(ImportError):
            util.import_from_string(path)


@pytest.fixture
def model_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "custom.py").write_text("class Custom:\n    pass\n")
    return str(folder)


def test_classes_from_outside_need_trust(model_folder):
    for name in ("custom.Custom", "torch.nn.GELU", "sentence_transformers_evil.X", "os.system"):
        with pytest.raises(UntrustedCodeError, match="trust_remote_code"):
            util.import_module_class(name, model_folder)
    custom = util.import_module_class("custom.Custom", model_folder, trust_remote_code=True)
    assert custom.__name__ == "Custom"
    assert util.import_module_class("torch.nn.GELU", model_folder, trust_remote_code=True) is torch.nn.GELU
    assert util.import_module_class("torch.nn.GELU") is torch.nn.GELU
    own = "sentence_transformers.similarity.SimilarityFunction"
    assert util.import_module_class(own, model_folder) is util.SimilarityFunction


@pytest.mark.parametrize("name", ["custom.Missing", "missing.X", "torch.nn.Missing"])
def test_missing_classes(model_folder, name):
    with pytest.raises(ImportError):
        util.import_module_class(name, model_folder, trust_remote_code=True)


def test_a_module_class_is_a_class(model_folder):
    with pytest.raises(ModelFormatError, match="not a class"):
        util.import_module_class("sentence_transformers.similarity.cos_sim", model_folder)


def test_original_models():
    assert ANSWERS["original_models"] == util.ORIGINAL_TRANSFORMER_MODELS


# Teacher targets


def targets(rows, temperature=1.0):
    logits = torch.tensor(rows)
    return torch.softmax(logits / temperature, dim=-1), logits, temperature


def test_teacher_targets_that_are_fine(caplog):
    nothing_left = (torch.tensor([[float("nan")] * 2]), torch.full((1, 2), -torch.inf), 1.0)
    for arguments in (targets([[1.0, 2.0]]), targets([[1.0, -torch.inf]]), nothing_left):
        util.check_teacher_targets(*arguments, "Loss")
    assert not caplog.records


def test_teacher_targets_with_nan():
    with pytest.raises(InputError, match=r"MyLoss.*NaN"):
        util.check_teacher_targets(*targets([[1.0, float("nan")]]), "MyLoss")


def test_teacher_targets_that_underflow_are_told_once(caplog, monkeypatch):
    monkeypatch.setattr(misc, "_underflow_told", set())
    for _ in range(3):
        util.check_teacher_targets(*targets([[1000.0, 2.0, -torch.inf], [1.0, 2.0, 3.0]]), "MyLoss")
    (record,) = caplog.records
    assert "MyLoss" in record.message and "1 of 5" in record.message and "above 9.98" in record.message


# Logging, files


def test_disable_logging():
    logger = logging.getLogger("quiet")
    with util.disable_logging():
        assert not logger.isEnabledFor(logging.CRITICAL)
        with util.disable_logging(logging.INFO):
            assert logger.isEnabledFor(logging.WARNING)
        assert not logger.isEnabledFor(logging.CRITICAL)
    assert logger.isEnabledFor(logging.CRITICAL)


def test_logging_handler_writes_formatted_records(capsys):
    logger = logging.Logger("any")
    logger.addHandler(util.LoggingHandler())
    logger.info("two words: %s", "here")
    assert capsys.readouterr().out == "two words: here\n"


@pytest.mark.parametrize(
    "before, appended, after",
    [
        ("a,b\n1,2\n3,4\n", True, "a,b\r\n1,2\r\n3,4,x,5\r\n"),
        ("a\n", False, "a\n"),
        ("", False, ""),
    ],
)
def test_append_to_last_row(tmp_path, before, appended, after):
    path = tmp_path / "scores.csv"
    path.write_bytes(before.encode())
    assert util.append_to_last_row(path, ["x", 5]) is appended
    assert path.read_bytes().decode() == after


def test_repo_name_is_the_older_name_of_repo_id():
    @util.save_to_hub_args_decorator
    def save(self, repo_id, private=None):
        return repo_id, private

    assert save(None, "x", private=True) == ("x", True)
    with pytest.warns(DeprecationWarning, match="repo_id"):
        assert save(None, repo_name="y") == ("y", None)


def test_is_sentence_transformer_model(tmp_path):
    assert not util.is_sentence_transformer_model(str(tmp_path))
    (tmp_path / "modules.json").write_text("[]")
    assert util.is_sentence_transformer_model(str(tmp_path))


def test_disabled_tqdm():
    assert util.disabled_tqdm(range(3), disable=False).disable
    assert list(util.disabled_tqdm(range(3))) == [0, 1, 2]


@contextmanager
def web_server(status, body, length):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/file")
                self.end_headers()
                return
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            """Stay silent."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_http_get(tmp_path, monkeypatch):
    monkeypatch.setattr("sentence_transformers.storage.file_io.CHUNK_BYTES", 1000)
    body = bytes(range(256)) * 20
    target = tmp_path / "new" / "file.bin"
    with web_server(200, body, len(body)) as address:
        for page in ("file", "moved"):
            util.http_get(f"{address}/{page}", target)
            assert target.read_bytes() == body
            target.write_bytes(b"old")
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("status, body, length", [(404, b"no", 2), (200, b"half", 8)], ids=["error", "cut off"])
def test_http_get_leaves_nothing_half_done(tmp_path, status, body, length):
    target = tmp_path / "file.bin"
    target.write_bytes(b"old")
    with web_server(status, body, length) as address, pytest.raises(OSError):
        util.http_get(f"{address}/file", target)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_http_get_takes_web_addresses_only(tmp_path):
    with pytest.raises(InputError, match="file:"):
        util.http_get("file:///etc/hostname", tmp_path / "x")


# Environment


def works_on(monkeypatch, *devices):
    monkeypatch.setattr(environment, "_device_works", lambda name: name in devices)


@pytest.mark.parametrize(
    "devices, best",
    [((), "cpu"), (("mps",), "mps"), (("xpu", "npu"), "npu"), (("hpu", "cuda"), "cuda"), (("hpu",), "hpu")],
)
def test_device_name(monkeypatch, devices, best):
    works_on(monkeypatch, *devices)
    assert util.get_device_name() == best


@pytest.mark.parametrize("device, name", [("cuda", "cuda:3"), ("npu", "npu:3"), ("mps", "mps"), ("cpu", "cpu")])
def test_device_name_of_a_process_in_a_group(monkeypatch, device, name):
    works_on(monkeypatch, device)
    monkeypatch.setattr(environment, "is_dist_initialized", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert util.get_device_name() == name


def test_package_availability():
    assert util.check_package_availability("transformers", "huggingface")
    assert not util.check_package_availability("transformers", "somebody")
    assert not util.check_package_availability("no_such_package", "huggingface")


@pytest.mark.parametrize(
    "requirements",
    [None, {}, {"torch": ">=2"}, {"torch": "nonsense"}, {"torch": None}, ["torch"], {"python": ">=3.11"}],
)
def test_requirements_that_are_met_or_unreadable(requirements):
    util.check_version_requirements(requirements, source="some/model")


def test_requirements_that_are_not_met():
    wanted = {"torch": ">=99", "no_such_package": ">=1", "python": ">=99", "numpy": ">=1"}
    with pytest.raises(ImportError) as caught:
        util.check_version_requirements(wanted, source="some/model")
    message = str(caught.value)
    assert "'some/model'" in message
    assert "torch>=99, but torch==" in message and "no_such_package>=1, but it is not installed" in message
    assert message.endswith('pip install -U "torch>=99" "no_such_package>=1"')
    assert "numpy" not in message


def test_suggestion_is_a_note_on_the_same_exception(monkeypatch):
    monkeypatch.setattr(environment, "is_datasets_available", lambda: False)
    monkeypatch.setattr(environment, "is_accelerate_available", lambda: True)
    with pytest.raises(ValueError, match="cause") as caught, environment.suggest_extra_on_exception():
        raise ValueError("cause")
    assert caught.value.__notes__ == ["Training needs datasets: pip install datasets"]


# Processes


def test_one_process(caplog):
    distributed._log_alone_once.cache_clear()
    assert (util.get_rank(), util.get_world_size()) == (0, 1)
    assert util.all_gather(X) is X and util.all_gather_with_grad(X) is X
    assert util.all_gather_padded(X, X)[0] is X
    assert len(caplog.records) == 1


GATHER = """
import sys
import torch
import torch.distributed as dist
from sentence_transformers import util

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
own = torch.full((2, 3), float(rank + 1), requires_grad=True)
gathered = util.all_gather(own)
assert gathered[:, 0].tolist() == [1, 1, 2, 2]
(gathered * (rank + 1)).sum().backward()
assert own.grad.unique().tolist() == [rank + 1]
own.grad = None
(util.all_gather_with_grad(own) * (rank + 1)).sum().backward()
assert own.grad.unique().tolist() == [3]
tokens, mask = util.all_gather_padded(torch.ones(1, rank + 2, 4), torch.ones(1, rank + 2))
assert tokens.shape == (2, 3, 4)
assert mask.tolist() == [[1, 1, 0], [1, 1, 1]]
assert tokens[..., 0].tolist() == mask.tolist()
assert (util.get_rank(), util.get_world_size()) == (rank, 2)
"""


@pytest.mark.slow
def test_two_processes(tmp_path):
    command = [sys.executable, "-c", GATHER]
    processes = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "meet")], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
