"""From streams of documents to the batches of a run: order, windows, packing, and a process's part of each batch."""

from pairform.training.data.stream.global_batch import Batch as Batch
from pairform.training.data.stream.global_batch import Batches as Batches
from pairform.training.data.stream.global_batch import MicroBatch as MicroBatch
from pairform.training.data.stream.layout import as_text as as_text
from pairform.training.data.stream.windows import PairStream as PairStream
from pairform.training.data.stream.windows import TextStream as TextStream
