"""Nothing in a file is executed: one module reads pickles without running them, and torch reads weights alone."""

import ast
from pathlib import Path

import lcm_distill

SOURCE = Path(lcm_distill.__file__).parent
EXECUTING = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
RESTRICTED = "training/checkpointing/pickled_index.py"


def trees():
    found = {str(path.relative_to(SOURCE)): ast.parse(path.read_text()) for path in SOURCE.rglob("*.py")}
    assert len(found) > 100
    return found.items()


def test_torch_loads_weights_only():
    loads = [
        (name, node)
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert loads
    for name, call in loads:
        chosen = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert chosen.get("weights_only") == "True", (name, call.lineno)


def test_no_other_reader_of_pickles():
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                roots = {module.partition(".")[0] for module in modules}
                assert name == RESTRICTED or not roots & EXECUTING, (name, node.lineno)
                assert not (isinstance(node, ast.ImportFrom) and node.module == "torch" and "load" in modules), name
            if isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle" or ast.unparse(node.value) == "False", (name, node.value.lineno)


def test_the_one_reader_finds_no_class_by_itself():
    tree = ast.parse((SOURCE / RESTRICTED).read_text())
    uses = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {use for use in uses if use.startswith("pickle.")} == {"pickle.Unpickler"}
    assert "super" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
