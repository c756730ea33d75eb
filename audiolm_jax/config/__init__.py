"""Typed configuration: dataclasses are the schema, and the configs themselves.

Every configurable thing is a dataclass (a Linen module is one too). Its fields,
with their annotations and defaults, are the only description of what may be
configured. A config file returns instances, `replace` changes some of their
fields, `to_config` gives the `ConfigDict` that flags override and config.json
holds, and `build` makes instances of either. Making an instance checks nothing:
`build` does, and it names the key, the value and what is allowed. Every run is
built, so that a module that stands in two fields is two modules with
parameters of their own.

Field annotations understood: `int`, `float`, `bool`, `str`, `Literal[...]`,
`X | None`, `tuple[X, ...]`, another dataclass, `Annotated[X, Range(...)]`, and
`Annotated[Any, Kind(lambda: TABLE)]` for a choice between dataclasses, where
`TABLE` maps a `kind` name to a class. `Named(X)` maps free names to X,
`Annotated[str, Path()]` is a file or folder.

A `Kind` field may also hold a dataclass of an experiment's own, whose `kind` is
then 'module:Class', as in 'experiments.heads.mine:MyHead'. Reading such a config
imports the module only if it lies in `configs/` or `experiments/` of the
checkout that this package is in; any other must have been imported by the
program. So a work directory from elsewhere runs no code of its own.
"""

from audiolm_jax.config.building import build
from audiolm_jax.config.building import build_kind
from audiolm_jax.config.facts import Fact
from audiolm_jax.config.facts import check_facts
from audiolm_jax.config.annotations import ConfigError
from audiolm_jax.config.annotations import Count
from audiolm_jax.config.annotations import Kind
from audiolm_jax.config.annotations import Named
from audiolm_jax.config.annotations import NonNegative
from audiolm_jax.config.annotations import Path
from audiolm_jax.config.annotations import Positive
from audiolm_jax.config.annotations import Range
from audiolm_jax.config.annotations import Share
from audiolm_jax.config.annotations import Sizes
from audiolm_jax.config.annotations import schema
from audiolm_jax.config.annotations import unknown_key
from audiolm_jax.config.annotations import unwrap
from audiolm_jax.config.forms import difference
from audiolm_jax.config.forms import to_config
from audiolm_jax.config.forms import to_json
from audiolm_jax.config.paths import located
from audiolm_jax.config.paths import placed
from audiolm_jax.config.paths import portable
from audiolm_jax.config.paths import relative
from audiolm_jax.config.replacing import replace
from audiolm_jax.config.replacing import steps_of
