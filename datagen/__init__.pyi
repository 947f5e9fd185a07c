from datagen.cli.describe import describe as describe
from datagen.errors import DatagenError as DatagenError
from datagen.evaluation.run import evaluate as evaluate
from datagen.reading.mix import mix as mix
from datagen.reading.shards import ShardDataset as ShardDataset
from datagen.records import Recipe as Recipe
from datagen.synthesis.export import export as export
from datagen.synthesis.run import synthesize as synthesize
from datagen.synthesis.stream import StreamDataset as StreamDataset
from datagen.training.run import fit as fit

__version__: str
__all__ = ["DatagenError", "Recipe", "ShardDataset", "StreamDataset", "__version__", "describe", "evaluate", "export", "fit", "mix", "synthesize"]
