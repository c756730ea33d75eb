"""Arms, budget matching, seeds, statistics, the HTML report.

What a run says of arms: `blocks` (several arms by seeds, with `multiplicity`'s
bounds and `verdicts`' words), `trends` (curves), `statistics` (one interval).
How it is shown: `report`, with `charts`, `drawing` and `loudness`; blind tests'
answers come back through `votes`, and what arms have to hear through `listening`.
"""
