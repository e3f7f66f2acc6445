"""A small sweep for real: DP-SGD on synthetic people, trained on this machine, and its best configuration as a file.

python examples/sweep.py [FOLDER]
"""

import sys
import tempfile

from tiny_data import tiny_data

import dpsweep


def main(storage: str) -> None:
    """Sweeps two trials and writes best.yaml."""
    options = tiny_data(f"{storage}/data")
    results = dpsweep.run("dpsgd", name="small", storage=storage, data_dir=f"{storage}/data", epsilons=[8.0], trials=2, set=options)
    print(results)
    winner = dpsweep.best("small", 8.0, storage=storage, out=f"{storage}/best.yaml")
    print(f"best at ε = 8: {winner.trial_id}, PCKh@0.5 {winner.pckh_50:.3f}; its settings are in best.yaml")
    ledger = dpsweep.read_ledger("small", storage=storage)
    print(f"the ledger has {len(ledger.lines)} lines and {'adds up' if ledger.is_sound else ledger.findings}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(folder)
