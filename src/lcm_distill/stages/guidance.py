"""How every way of drawing answers to the guidance scale."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from lcm_distill.config import Config
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.report.guidance import guidance_chart, guidance_text
from lcm_distill.stages.drawing import Drawing, Prompt, draw, samplings
from lcm_distill.stages.measuring import METRICS, figures, real_reference
from lcm_distill.stages.write_up import write_up


def sweep_guidance(config: Config, run: RunFolder, prompts: Sequence[Prompt]) -> Iterator[Progress]:
    """Draw at every scale of `evaluate.guidance_sweep`, and write `guidance.parquet`, `.md` and `.png`."""
    scales = config.evaluate.guidance_sweep
    drawings = [Drawing(config, run, way, prompts) for scale in scales for way in samplings(config, scale)]
    yield from draw("sweep", drawings)
    reference = real_reference(config, run, prompts)
    rows = [row for drawing in drawings for row in figures(drawing, reference)]
    table, trained, notice = pa.Table.from_pylist(rows, schema=METRICS), config.distill.guidance_range, config.stand_ins
    write_up(run.guidance, table, guidance_text(rows, trained, notice), guidance_chart(rows, trained, notice))
