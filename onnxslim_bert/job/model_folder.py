"""A job on a folder: from one of Hugging Face or sentence-transformers, one that its users load as they did."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from onnxslim_bert.documents import read_object
from onnxslim_bert.errors import OutputError, PassError, SlimError
from onnxslim_bert.graph.files import check_output, model_files, staging, write_atomically
from onnxslim_bert.graph.model_folders import find_model, has_torch_weights, onnx_files
from onnxslim_bert.graph.naming import give_names
from onnxslim_bert.job.folder_files import copy_files, files_in, is_weight
from onnxslim_bert.job.job import Job
from onnxslim_bert.job.model_card import CARD, card
from onnxslim_bert.job.report import Report
from onnxslim_bert.job.run import run
from onnxslim_bert.model.model_config import CONFIG
from onnxslim_bert.proof.documents import report_path, write_report


@dataclass(frozen=True)
class FolderJob:
    """A job whose source and output are folders.

    job: its `source` and `output` are the two folders; when they are one, the model and its report are added to it.
    place: the model's name in the output, like onnx/model_quantized.onnx (`folder_files.model_place`).
    keep_weights: the output gets the source's own weights, too: PyTorch's, other ONNX files and the like.
    """

    job: Job
    place: PurePosixPath
    keep_weights: bool = False

    @property
    def adds(self) -> bool:
        """Whether the output is the source."""
        return _same(self.job.output, self.job.source)

    def check(self) -> None:
        """Refuse, before any work, what cannot be read or written.

        Raises ModelError for a source that holds no model, or several; OutputError for an output that exists, lies in
        its source or names a file of the source other than the model; PassError for what a folder has no place for;
        DataError for a config.json that is none.
        """
        job, output = self.job, self.job.output
        model = _model_of(job.source)
        if model is None and not has_torch_weights(job.source):
            find_model(job.source)  # says what is missing
        if len(job.deployment.seq) > 1:
            raise PassError("several lengths make a folder of their own: name the ONNX file, not its folder")
        if job.rewrite_tokenizer:
            raise PassError("--rewrite-tokenizer changes one of a folder's tokenizer files: name the ONNX file")
        if (job.source / CONFIG).exists():
            read_object(job.source / CONFIG)  # it describes the new model, too
        if self.adds:
            files = model_files(model) if model is not None else []
            for file in (output / self.place, report_path(output / self.place)):
                if file.exists() or file.parent.exists():
                    check_output(file, overwrite=job.overwrite, inputs=files)
            return
        if job.source.resolve() in output.resolve().parents:
            raise OutputError(f"{output} lies in {job.source}, which it is made from; give a folder beside that")
        if os.path.lexists(output) and not output.is_dir():
            raise OutputError(f"{output} exists and is no folder; give another output")
        if output.exists() and any(output.iterdir()) and not job.overwrite:
            raise OutputError(f"{output} exists; give another output or --force to replace its files")
        if not output.parent.is_dir():
            raise OutputError(f"{output}: no folder {output.parent}; make it first")
        taken = job.source / self.place
        if self.keep_weights and taken.exists() and not _same(taken, model):
            raise OutputError(f"{job.source} has a {self.place} of its own, which --keep-weights keeps; give --name")

    def run(self) -> Report:
        """Write the model with its report, a copy of every other file of the source, and a model card, as one step.

        Files are copied as they are, but for README.md, to which what was measured is added. Left out are weights,
        unless `keep_weights`, and hidden folders such as .git. A source without an ONNX file is exported first, which
        needs PyTorch. Raises as `check`, `export_encoder` and `job.run` do; nothing is written then.
        """
        self.check()
        job = self.job
        if job.output.name in ("", ".."):  # the current folder, or the one above: their names are needed
            job = replace(job, output=job.output.resolve())
        with staging(job.output) as beside, _worded(beside, job.output):
            source, made = _model_of(job.source), beside / job.output.name
            file = made / self.place
            file.parent.mkdir(parents=True)
            if not self.adds:
                copy_files(job.source, made, self._kept(source))
            read = source or _exported(job.source, beside / "exported")
            report = run(replace(job, source=read, output=file, report=False))
            report = replace(report, source=source or job.source, output=job.output / self.place)
            if report.published:
                if job.report:
                    write_report(report_path(file), report)
                if not self.adds:
                    text = card(report, job.source, job.output.name, str(self.place))
                    write_atomically(made / CARD, [text.encode()], overwrite=True)
                _publish(made, job.output, self.place, overwrite=job.overwrite)
        return report

    def left_out(self) -> list[str]:
        """The files of the source that hold weights and are not copied, by name."""
        kept = {*self._kept(_model_of(self.job.source))}
        return [] if self.adds else [str(name) for name in files_in(self.job.source) if name not in kept]

    def _kept(self, model: Path | None) -> Iterator[PurePosixPath]:
        """The files of the source to copy: no weights unless asked for, no model whose name the new one takes."""
        source = self.job.source
        drops_model = model is not None and (not self.keep_weights or _same(source / self.place, model))
        dropped = model_files(model) if model is not None and drops_model else []
        for name in files_in(source):
            if (self.keep_weights or not is_weight(name)) and not any(_same(source / name, each) for each in dropped):
                yield name


def _publish(made: Path, output: Path, place: PurePosixPath, *, overwrite: bool) -> None:
    """Give the folder `made` its name; where a folder with files has that name, give them theirs: all or none."""
    if not output.exists() or not any(output.iterdir()):
        give_names([(made, output)], overwrite=output.exists())
        return
    names = sorted(files_in(made), key=lambda name: name == place)  # the model comes last
    with contextlib.ExitStack() as undo:
        for name in names:
            for folder in reversed((output / name).parents):
                if not folder.exists():
                    folder.mkdir()
                    undo.callback(folder.rmdir)
        give_names([(made / name, output / name) for name in names], overwrite=overwrite, claim=made.parent)
        undo.pop_all()


def _exported(source: Path, folder: Path) -> Path:
    """An ONNX file made of a folder's PyTorch weights, with the folder's other files beside it."""
    from onnxslim_bert.export.hugging_face import export_encoder

    folder.mkdir()
    copy_files(source, folder, [name for name in files_in(source) if not is_weight(name)])
    return export_encoder(source, folder / "model.onnx")


def _model_of(source: Path) -> Path | None:
    """The ONNX file of a folder; None where it has none. Raises ModelError when it has several."""
    return find_model(source) if onnx_files(source) else None


def _same(path: Path, other: Path | None) -> bool:
    return other is not None and path.exists() and other.exists() and path.samefile(other)


@contextlib.contextmanager
def _worded(beside: Path, output: Path) -> Iterator[None]:
    """Word an error about a file in the temporary folder as one about the output, which the user knows."""
    try:
        yield
    except SlimError as error:
        text = str(error).replace(str(beside / output.name), str(output)).replace(f"{beside}{os.sep}", "")
        error.args = (text, *error.args[1:])
        raise
