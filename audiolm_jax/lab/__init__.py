"""Open questions as controlled experiments: chains of stages, compared.

stages     what an arm is a chain of: train, evaluate, commands, functions.
curves     outcomes that are curves: against N, FLOPs, position.
questions  a question: arms, grids, controls, outcomes.
controls   arms differ in what is declared, and in nothing else.
budgets    what an arm spends, and the refusal of unequal budgets.
runner     runs stages that are missing, beside other processes if need be.
runs       runs a question: sweeps, replicates, what there is to hear.
answering  what the finished stages say.
pages      the report, a README's results, the map of questions.
"""
