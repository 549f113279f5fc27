"""`fastbsn app`: the page to choose by eye."""

from __future__ import annotations

import argparse


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--model", default="auto", help="chosen at first: auto, a bundled name, .safetensors file or folder (%(default)s)")
    p.add_argument("--port", type=int, default=7860, help="of http://127.0.0.1; 0 takes a free one (%(default)s)")
    p.add_argument("--quality", type=int, help="of saved JPEG and WebP, 0 to 100; default: as the picture was compressed")
    p.add_argument("--no-browser", action="store_true", help="print the address and open nothing")


def run(args: argparse.Namespace) -> int:
    from fastbsn.errors import BackendError
    from fastbsn.models import find_model

    if args.model != "auto":
        find_model(args.model)
    try:
        from fastbsn.app.page import serve
    except ImportError as error:
        raise BackendError(f"the page needs Gradio, which cannot be imported ({error}); pip install 'fastbsn[app]'") from error
    serve(args.port, args.model, args.device, not args.no_browser, args.quality)
    return 0
