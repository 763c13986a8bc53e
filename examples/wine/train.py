"""Train a random forest to tell three cultivars of grapes apart by thirteen measurements of a wine.

A plain script: it writes ``SM_MODEL_DIR`` and takes its hyperparameters as arguments, so it also
runs by hand and on SageMaker. The data comes with scikit-learn.
"""

import argparse
import json
import os
from pathlib import Path

import pandas as pd
import skops.io
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score


def read() -> tuple[pd.DataFrame, pd.Series]:
    """Measurements ``[n, 13]`` with the names of their columns, and the cultivar of each wine."""
    wine = load_wine(as_frame=True)
    names = [str(name).replace("class_", "cultivar ") for name in wine.target_names]
    return wine.data, wine.target.map(dict(enumerate(names)))


def golden(wines: pd.DataFrame) -> dict[str, list[dict[str, object]]]:
    """A request that a new version has to answer: one input a column."""
    columns = {str(name): column.tolist() for name, column in wines.items()}
    return {
        "inputs": [
            {"name": name, "shape": [len(values)], "datatype": "FP64", "data": values}
            for name, values in columns.items()
        ]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model-dir", type=Path, default=os.environ.get("SM_MODEL_DIR", "model"))
    options = parser.parse_args()

    wines, cultivars = read()
    forest = RandomForestClassifier(options.trees, random_state=options.seed)
    accuracy = cross_val_score(forest, wines, cultivars, cv=5).mean()
    print(f"accuracy {accuracy:.4f}", flush=True)

    # What was fitted on a table knows its columns: they become the inputs of the endpoint.
    forest.fit(wines, cultivars)
    options.model_dir.mkdir(parents=True, exist_ok=True)
    skops.io.dump(forest, options.model_dir / "model.skops")
    (options.model_dir / "golden.json").write_text(json.dumps(golden(wines.iloc[[0, 70, 140]])))


if __name__ == "__main__":
    main()
