"""The page itself (Gradio): what is on it and what happens when something is chosen."""

from __future__ import annotations

import os
import shutil
import tempfile
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from fastbsn.app.work import MAX_FILE, Result, Settings, denoise, denoise_all, pictures, show
from fastbsn.errors import FastBSNError, InputError
from fastbsn.inference.dither import STRONGEST
from fastbsn.io.image_files import SUFFIXES
from fastbsn.models import list_models
from fastbsn.report.view import slider

FONTS = ["system-ui", "sans-serif"]  # the machine's own: nothing is fetched


def devices() -> list[str]:
    import torch

    return ["auto", "cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]


def _sentence(text: str, failed: bool = False) -> str:
    return f'<p role="{"alert" if failed else "status"}">{escape(text)}</p>'


def _facts(file: Path, result: Result) -> str:
    size = " x ".join(map(str, result.before.shape))
    return _sentence(
        f"{file.name}: {result.before.dtype} {size}; noise found: {result.noise:.3g}, in the units of the picture; "
        f"{result.model} ({result.reason}), {result.seconds:.2f} s"
    )


def build(folder: Path, model: str = "auto", device: str = "auto", quality: int | None = None) -> gr.Blocks:
    """The page.

    Args:
        folder: that results are kept in while it runs.
        model, device: chosen at first.
        quality: of saved JPEG and WebP files; None: as the picture was compressed.
    """

    def choose(files: list[str] | None) -> tuple[Any, str]:
        """Files were dropped: the first picture is chosen."""
        try:
            found = pictures(files or [])
        except InputError as error:
            return gr.Dropdown(choices=[], value=None), _sentence(str(error), failed=True) if files else ""
        left = len(files or []) - len(found)
        text = f"{left} other file{'s' if left != 1 else ''} left out" if left else ""
        return gr.Dropdown(choices=[(p.name, i) for i, p in enumerate(found)], value=0), _sentence(text) if text else ""

    def run(files: list[str] | None, index: int | None, *choices: Any) -> tuple[str, str, Any, Any]:
        *settings, previous = choices
        if previous:
            shutil.rmtree(previous, ignore_errors=True)
        nothing = gr.DownloadButton(value=None, interactive=False)
        if not files or index is None:
            return gr.skip(), "", nothing, None
        try:
            file = pictures(files)[index]
            result = denoise(file, Settings(*settings))
            shown = show(result, file, folder, quality)
        except FastBSNError as error:
            return _sentence(str(error), failed=True), "", nothing, None
        before, after = (f"/gradio_api/file={path}" for path in (shown.before, shown.after))
        html = slider(file.name, before, after, shown.height, shown.width)
        return _facts(file, result), html, gr.DownloadButton(value=str(shown.saved), interactive=True), str(shown.saved.parent)

    def run_all(files: list[str] | None, *settings: Any) -> tuple[str, Any]:
        try:
            found = pictures(files or [])
            archive = Path(tempfile.mkdtemp(dir=folder)) / "denoised.zip"
            failed = denoise_all(found, Settings(*settings), archive, quality)
        except FastBSNError as error:
            return _sentence(str(error), failed=True), gr.DownloadButton(visible=False)
        done = _sentence(f"{len(found) - len(failed)} denoised, {len(failed)} failed")
        return done + "".join(_sentence(text, failed=True) for text in failed), gr.DownloadButton(value=str(archive), visible=True)

    def forget(results: str | None) -> None:
        if results:
            shutil.rmtree(results, ignore_errors=True)

    with gr.Blocks(title="fastbsn", analytics_enabled=False, fill_width=True) as page:
        results = gr.State(None, delete_callback=forget)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                files = gr.File(label=f"Pictures ({', '.join(SUFFIXES)})", file_count="multiple", elem_id="files", height=160)
                directory = gr.UploadButton("Choose a folder", file_count="directory", size="sm", elem_id="folder")
                index = gr.Dropdown(label="Picture", choices=[], elem_id="picture")
                models = list(dict.fromkeys(["auto", *list_models(), model]))
                settings = [
                    gr.Dropdown(models, value=model, label="Model", elem_id="model"),
                    gr.Slider(0, STRONGEST, 1, step=0.05, label="Strength (1: as trained; above: twice the time)", elem_id="strength"),
                    gr.Dropdown(list(dict.fromkeys([*devices(), device])), value=device, label="Device", elem_id="device"),
                ]
                save = gr.DownloadButton("Save", variant="primary", interactive=False, elem_id="save")
                everything = gr.Button("Denoise all", elem_id="all")
                archive = gr.DownloadButton("Save all (ZIP)", visible=False, elem_id="archive")
            with gr.Column(scale=4):
                facts = gr.HTML(elem_id="facts", apply_default_css=False)
                shown = gr.HTML(elem_id="view", apply_default_css=False)
        outputs: Any = [facts, shown, save, results]
        inputs: Any = [files, index, *settings, results]
        directory.upload(lambda chosen: chosen, directory, files, show_progress="hidden")
        files.change(choose, files, [index, facts]).then(run, inputs, outputs)
        for event in (index.input, settings[0].input, settings[1].release, settings[2].input):
            event(run, inputs, outputs, trigger_mode="always_last")
        everything.click(run_all, [files, *settings], [facts, archive])
    return page


def serve(port: int, model: str, device: str, browser: bool, quality: int | None = None) -> None:
    """Serve the page on this machine's own address until interrupted; what was uploaded and made is deleted then.

    Args:
        port: of http://127.0.0.1; 0 takes a free one.
        model, device: chosen at first.
        browser: open the page.
        quality: see `build`.

    Raises:
        InputError: the port is in use.
    """
    with tempfile.TemporaryDirectory(prefix="fastbsn-app-") as name:
        os.environ["GRADIO_TEMP_DIR"] = name
        page = build(Path(name), model, device, quality)
        try:
            _, url, _ = page.launch(
                server_name="127.0.0.1",
                server_port=port or None,
                share=False,
                inbrowser=browser,
                quiet=True,
                prevent_thread_lock=True,
                allowed_paths=[name],
                max_file_size=MAX_FILE,
                footer_links=[],
                theme=gr.themes.Default(font=FONTS, font_mono=["monospace"]),
                pwa=False,
                mcp_server=False,
                ssr_mode=False,
                enable_monitoring=False,
            )
        except OSError as error:
            raise InputError(f"port {port}: {error}; choose another with --port, or 0 for a free one") from error
        print(f"{url} (Ctrl+C stops it)", flush=True)
        try:
            page.block_thread()
        finally:
            page.close()
