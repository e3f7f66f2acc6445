"""What a sweep would cost, before anything is started or charged; and what one run spends.

python examples/plan.py
"""

import tempfile

import dpsweep

with tempfile.TemporaryDirectory() as folder:
    for trials in (4, 16):
        plan = dpsweep.plan("dpsgd", epsilons=[0.8], trials=trials, storage=folder, data_dir=f"{folder}/data")
        print(f"{trials} trials at ε = 0.8 each: the sweep costs ε = {plan.sweep_epsilon:.2f}")
    print()
    print(plan)

budget = dpsweep.epsilon(sampling_prob=0.064, steps=100, delta=1e-5, target_epsilon=0.8)
print()
print(f"one run: noise multiplier {budget.noise_multiplier:.3f} spends ε = {budget.epsilon:.4f}")
