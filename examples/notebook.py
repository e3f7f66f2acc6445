# %% [markdown]
# # A sweep in a notebook
# Each `# %%` is a cell: Jupyter (by jupytext), VS Code and PyCharm open this file as a notebook. The trials are simulated, so
# that it takes seconds.

# %%
import tempfile

from tiny_data import tiny_data

import dpsweep

kept = tempfile.TemporaryDirectory()  # gone when the kernel ends; give a folder of your own to keep the sweep
folder = kept.name
options = {"name": "simulated", "storage": folder, "data_dir": f"{folder}/data", "set": tiny_data(f"{folder}/data")}
spec = dpsweep.new_spec("dpsgd", epsilons=[8.0], trials=6, trial_function="sweeps.engine.simulation:run_trial", **options)

# %% What it will cost
dpsweep.plan(spec)

# %% Run it. Trials are printed as they end.
results = dpsweep.run(spec)

# %% The table: one row per ε, and the price of the whole sweep
results  # noqa: B018

# %% All trials as a table of Arrow; `results.to_pandas()` gives a data frame
table = results.to_arrow().select(["trial_id", "epsilon", "clip_norm", "learning_rate", "pckh_50"])
print(table.to_pylist()[0])

# %% The winner at ε = 8 and its settings
winner = results.best(8.0)
print(winner.trial_id, winner.config.clip_norm, winner.config.optimizer.learning_rate)

# %% The same results later, from their folder
assert dpsweep.read_results("simulated", storage=folder).best(8.0).trial_id == winner.trial_id
