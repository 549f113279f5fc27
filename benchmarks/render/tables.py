"""Result files as Markdown tables: what README shows and what the commands print."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.render.cells import Row, machine, number, table
from benchmarks.render.failures import failures

# PSNR of BM3D (colour: CBM3D), told sigma, and of the teacher of Wu et al., ECCV 2020, by set and noise, as that paper reports them.
PUBLISHED = {
    ("bsd68", "gaussian:15"): (31.07, 31.24),
    ("bsd68", "gaussian:25"): (28.57, 28.88),
    ("bsd68", "gaussian:50"): (25.62, 25.81),
    ("cbsd68", "gaussian:15"): (33.52, 33.56),
    ("cbsd68", "gaussian:25"): (30.71, 30.61),
    ("cbsd68", "gaussian:50"): (27.38, 27.41),
}


def _ms(row: Row) -> str:
    return f"{row['ms']:.3g} ({row['p20']:.3g} to {row['p80']:.3g})"


def speed(rows: Sequence[Row]) -> str:
    """Versions by case, with the speed-up over eager fp32 and over the fastest baseline; rows without a speed give their reason."""
    lines = []
    for case in dict.fromkeys((r["suite"], r["case"]) for r in rows):
        mine = [r for r in rows if (r["suite"], r["case"]) == case]
        baselines = {r["version"]: r["ms"] for r in mine if r["status"] == "measured" and r["baseline"]}
        rivals = (baselines.get("eager fp32 NCHW"), min(baselines.values(), default=None))
        for r in mine:
            name = f"{r['suite']}: {r['case']}: {r['version']}"
            if r["status"] == "measured":
                ratios = [f"{ms / r['ms']:.2f}x" if ms else "" for ms in rivals]
                roofline = f"{100 * r['roofline']:.0f}%" if "roofline" in r else ""
                parity = (number(r["psnr_difference"], 4, True), f"{r['error']:.1e}")
                lines.append([name, _ms(r), *ratios, number(r.get("mpixel_per_s"), 2), roofline, *parity])
            elif r["status"] != "skipped":
                lines.append([name, r["status"], "", "", "", "", number(r.get("psnr_difference"), 4, True), r["reason"]])
    columns = ["ms (p20 to p80)", "vs eager fp32", "vs best baseline", "Mpixel/s", "of roofline", "PSNR - fp32, dB", "relative error"]
    return table(["version", *columns], lines)


def skipped(rows: Sequence[Row]) -> str:
    """Versions that could not run, by reason."""
    reasons: dict[str, list[str]] = {}
    for r in rows:
        if r["status"] == "skipped":
            reasons.setdefault(r["reason"], []).append(r["version"])
    return "\n".join(f"Skipped: {', '.join(dict.fromkeys(names))}: {reason}." for reason, names in reasons.items())


def _methods(rows: Sequence[Row]) -> str:
    lines = []
    for r in rows:
        told = "sigma known" if r["told_sigma"] else "blind"
        minutes = f"{r['train_minutes']:g}" if r.get("train_minutes") else ""
        psnr, seconds = (r["reason"], "") if "reason" in r else (f"{r['psnr']:.2f}", f"{r['seconds']:.3g}")
        lines.append([r["method"], told, minutes, psnr, seconds])
    return table(["method", "noise level", "training, minutes", "PSNR, dB", "seconds per image"], lines, 2)


def cpu(result: Row) -> str:
    note = f"Student: {result['weights']}. {machine(result['machine'])}"
    return "\n\n".join([speed(result["rows"]), _methods(result["methods"]), note])


def summary(rows: Sequence[Row]) -> str:
    """One line per case: the fastest baseline, the fastest of fastbsn, and how many versions the gate refused."""
    lines = []
    for case in dict.fromkeys((r["suite"], r["case"]) for r in rows):
        mine = [r for r in rows if (r["suite"], r["case"]) == case]
        fastest = [
            min((r for r in mine if r["status"] == "measured" and r["baseline"] is b), key=lambda r: r["ms"], default=None)
            for b in (True, False)
        ]
        cells = [f"{r['version']} {r['ms']:.3g} ms" if r else "none" for r in fastest]
        ratio = f"{fastest[0]['ms'] / fastest[1]['ms']:.2f}x" if all(fastest) else ""
        bad = sum(r["status"] in ("refused", "failed") for r in mine)
        lines.append([f"{case[0]}: {case[1]}", *cells, ratio, str(bad)])
    return table(["case", "fastest baseline", "fastest of fastbsn", "speed-up", "refused or failed"], lines, 3)


def _sections(sections: Row) -> str:
    def result(s: Row) -> str:
        return s["status"] + (f": {s['reason']}" if s.get("reason") else "")

    return table(["section", "seconds", "result"], [[name, f"{s['seconds']:.0f}", result(s)] for name, s in sections.items()])


def gpu(result: Row) -> str:
    measured = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in result["ceilings"].items())
    parts = [speed(result["rows"]) if result["rows"] else "", f"Ceilings: {measured}." if measured else ""]
    return "\n\n".join([*filter(None, parts), machine(result["machine"])])


def gpu_short(result: Row) -> str:
    parts = [_sections(result["sections"]), skipped(result["rows"]), summary(result["rows"]) if result["rows"] else ""]
    return "\n\n".join([*filter(None, parts), machine(result["machine"]) if result["machine"] else ""])


def peers(result: Row) -> str:
    s = result["settings"]
    note = f"{s['n']} images of {s['images']}, noise {s['noise']}, seed {s['seed']}, unclipped; one image at a time."
    return "\n\n".join([_methods(result["methods"]), f"{note} {machine(result['machine'])}"])


def photographs(result: Row) -> str:
    """Denoisers of photographs that are told nothing about the noise."""
    lines = [
        [
            r["method"],
            number(r.get("psnr"), 2),
            number(r.get("smallest gain"), 2, True),
            str(r.get("worse than input", "")),
            r.get("reason", ""),
        ]
        for r in result["methods"]
    ]
    s = result["settings"]
    which = f"{s['n']} pairs of {s['pairs']}" + (f", every {s['every']}th" if s["every"] > 1 else "")
    columns = ["method", "PSNR, dB", "smallest gain, dB", "worse than the input", ""]
    return "\n\n".join([table(columns, lines), f"{which}. {machine(result['machine'])}"])


def ablation(result: Row) -> str:
    lines = []
    for r in result["rows"]:
        gain = "" if r["gain"] is None else f"{r['gain']:+.2f} over {r['versus']}"
        lines.append([r["question"], r["name"], r["noise"], number(r["psnr"], 2), gain])
    s = result["settings"]
    note = f"Budget of every training: {s['budget']}; {s['images']} training images, {s['test']} test images"
    note += f", {s['pairs']} real pairs" if "pairs" in s else ""
    note += f"; seed {s['seed']}."
    return "\n\n".join([table(["question", "estimate", "noise", "PSNR, dB", "gain, dB"], lines, 3), f"{note} {machine(result['machine'])}"])


def speedrun(result: Row) -> str:
    lines = []
    for r in result["runs"]:
        reached = "yes" if r["psnr"] >= r["target"] else "no"
        lines.append(
            [
                r["track"],
                f"{r['target']:.2f}",
                f"{r['psnr']:.2f}",
                reached,
                f"{r['seconds']:.0f}",
                str(len(r["seeds"])),
                r["hardware"],
                r["date"],
            ]
        )
    return table(["track", "target, dB", "mean PSNR, dB", "reached", "seconds", "seeds", "hardware", "date"], lines)


def quality(results: Sequence[Row]) -> str:
    """Files of `fastbsn evaluate -o`, joined, beside published figures for the same noise."""
    lines = []
    for r in results:
        noise, published = (
            f"{r['noise']}" + ("" if r["clip"] == "none" else f", {r['clip']}"),
            PUBLISHED.get((r["set"], r["noise"]), (None, None)),
        )
        scores = [number(r["input_psnr"], 2), number(r["psnr"], 2), number(r["ssim"], 4), *(number(v, 2) for v in published)]
        lines.append([f"{r['set']} ({r['n']})", noise, Path(r["model"]).stem, *scores])
    return table(["set (images)", "noise", "model", "input, dB", "PSNR, dB", "SSIM", "BM3D, told sigma", "D-BSN paper"], lines, 3)


def int8(result: Row) -> str:
    rows = result["rows"]
    columns = ["in INT8", "values clipped", *(f"sigma {s}: PSNR - fp32, dB" for s in rows[0]["sigma"]), f"within {result['gate_db']} dB"]
    lines = [
        [r["plan"], f"{2 * r['outside']:.3%}", *(number(x, 3, True) for x in r["difference"]), "yes" if r["passes"] else "no"] for r in rows
    ]
    note = f"{result['model']}, {result['images']} images of {result['clean']}, simulated."
    return "\n\n".join([table(columns, lines), f"{note} {machine(result['machine'])}"])


def qat(result: Row) -> str:
    """INT8 before and after quantisation-aware training."""
    sets = list(result["fp32"])
    lines = []
    for r in result["rows"]:
        numbers = [number(r[when][s], 3, True) for s in sets for when in ("before", "after")]
        lines.append([r["plan"], *numbers, "yes" if r["passes"] else "no"])
    head = ["in INT8", *(f"{s}, {when}, dB" for s in sets for when in ("before", "after")), f"within {result['gate_db']} dB"]
    counts = ", ".join(f"{n} of {s}" for s, n in result["n"].items())
    note = f"{result['model']}, PSNR - fp32, simulated; {result['steps']} steps. Images: {counts}."
    return "\n\n".join([table(head, lines), f"{note} {machine(result['machine'])}"])


def vnni(result: Row) -> str:
    """INT8 on a CPU: quality beside bf16, and speed."""
    found = []
    if part := result.get("quality"):
        numbers = [[number(r["bf16"], 3), *(number(r[k], 3, True) for k in ("difference", "smallest"))] for r in part["rows"]]
        lines = [
            [r["model"], f"{r['n']} of {r['set']}", *n, "yes" if r["passes"] else "no"] for r, n in zip(part["rows"], numbers, strict=True)
        ]
        columns = ["model", "images", "bf16: PSNR, dB", "INT8 - bf16: mean, dB", "smallest, dB", f"within {result['gate_db']} dB"]
        found += [table(columns, lines, 2), machine(part["machine"])]
    if part := result.get("speed"):
        ratios = [f"{r['ratio']:.2f}x" if r["passes"] else "refused: PSNR" for r in part["rows"]]
        times = [[r["size"], str(r["threads"]), *(f"{s:.3g}" for s in r["seconds"].values())] for r in part["rows"]]
        columns = ["image", "threads", *(f"{name}, s" for name in part["rows"][0]["seconds"]), "INT8 over the faster bf16"]
        lines = [[*t, ratio] for t, ratio in zip(times, ratios, strict=True)]
        found += [table(columns, lines), f"{part['model']}, medians; rounds: {part['rows'][0]['rounds']}. {machine(part['machine'])}"]
    return "\n\n".join(found)


def engines(result: Row) -> str:
    lines = []
    for r in result["rows"]:
        name = [r["size"].replace("x", " x "), str(r["threads"]), r["engine"]]
        if r["status"] == "measured":
            numbers = [f"{r['wall_s']:.3g}", f"{r['cpu_s']:.3g}", str(r["peak_mib"])]
            lines.append([*name, *numbers, number(r["psnr"], 2), number(r.get("psnr_difference"), 4, True)])
        else:
            lines.append([*name, r["status"], "", "", "", r["reason"]])
    columns = ["image", "threads", "engine", "wall, s", "CPU, s", "peak memory, MiB", "PSNR, dB", "PSNR - fp32, dB"]
    return "\n\n".join([table(columns, lines, 3), f"{result['model']}. {machine(result['machine'])}"])


def reliability(result: Row) -> str:
    lines = [[r["goal"], f"{r['asked']:,}", f"{r['done']:,}", str(r["failures"]), f"{r['seconds']:,.0f}"] for r in result["rows"]]
    columns = ["goal", "cases asked for", "right", "tests failed", "seconds"]
    return "\n\n".join([table(columns, lines), machine(result["machine"])])


def camera(result: Row) -> str:
    """Ways to train for one camera."""
    lines = [[r["way"], number(r["psnr"], 2), number(r["smallest gain"], 2, True), str(r["worse than input"])] for r in result["rows"]]
    s = result["settings"]
    note = f"{s['n']} pairs of {s['pairs']}; budget of every training {s['budget']}, {s['threads']} threads."
    columns = ["way", "PSNR, dB", "smallest gain, dB", "worse than the input"]
    return "\n\n".join([table(columns, lines), f"{note} {machine(result['machine'])}"])


def bundled(result: Row) -> str:
    """Seconds of every bundled model, and what a fast one gains."""
    lines = [
        [r["size"].replace("x", " x "), str(r["threads"]), r["model"], f"{r['seconds']:.3g}", f"{r['ratio']:.2f}x" if "ratio" in r else ""]
        for r in result["rows"]
    ]
    return "\n\n".join([table(["image", "threads", "model", "s", "of the larger one"], lines, 3), machine(result["machine"])])


MODEL_HEAD = ["GPU", "tensor cores, ms", "issue, ms", "shared memory, ms", "L2, ms", "DRAM, ms", "FLOP / L2 byte", "**predicted**, ms"]


def _model_cells(gpu: str, r: Row) -> list[str]:
    times = [f"{r[key]:.3g}" for key in ("tensor", "issue", "shared", "l2", "memory")]
    return [gpu, *times, f"{r['flop_per_l2_byte']:.0f}", f"{r['least']:.3g} to {r['most']:.3g}"]


def model(result: Row) -> str:
    """Predicted times, resource by resource; not one of them is measured. Parts are those of the largest images."""
    lines = [
        [r["what"], r["size"], *_model_cells(r["gpu"], r), f"{r['pixels'] / r['most'] / 1e3:,.0f} to {r['pixels'] / r['least'] / 1e3:,.0f}"]
        for r in result["rows"]
    ]
    size = result["rows"][-1]["size"]
    parts = [[r["what"], p["part"], *_model_cells(r["gpu"], p)] for r in result["rows"] if r["size"] == size for p in r["parts"]]
    peaks = ", ".join(
        f"{p['name']} {p['tflops']} TFLOP/s, {p['memory'] / 1e12:g} TB/s, L2 {p['l2'] / 1e12:g} TB/s"
        for p in result["inputs"]["peaks"].values()
    )
    note = f"Predicted, not measured. Peaks: {peaks} (L2 of the H100 assumed, the others from data sheets). "
    note += f"Counts of commits {result['inputs']['counts']} and {result['inputs']['modules']}."
    whole = table(["what", "images", *MODEL_HEAD, "Mpixel/s"], lines, 3)
    return "\n\n".join(
        [
            whole,
            note,
            f"Block by block and kernel by kernel, {size}; predicted, not measured:",
            table(["what", "part", *MODEL_HEAD], parts, 3),
        ]
    )


def modules(result: Row) -> str:
    """Counts of the Triton kernels of the teacher's module, before and now."""
    lines = []
    for when in ("before", "now"):
        for r in result.get(when, ()):
            block, chunk, warps, stages = r["config"]
            loop = str(r["loop"]["instructions_per_product"]) if r["loop"] else "all unrolled"
            numbers = [str(r[key]) for key in ("registers", "shared", "blocks_per_sm", "waits")]
            name = f"{r['kernel']}, {r['arch']}" + (", before" if when == "before" else "")
            lines.append([name, f"{block} x {chunk}, {warps}, {stages}", *numbers, loop])
    head = [
        "kernel",
        "block x chunk, warps, stages",
        "registers",
        "shared memory, bytes",
        "blocks per SM",
        "waits",
        "instructions per product",
    ]
    note = f"Before: commit {result['before_commit']}; now: {result['commit']}. Counts of the compiler, no times."
    return "\n\n".join([table(head, lines, 2), note])


def choice(result: Row) -> str:
    """The automatic choice between two models, by kind of noise."""
    models = list(result["rows"][0]["taken"])
    lines = [
        [
            r["kind"],
            str(r["n"]),
            *(str(r["taken"][m]) for m in models),
            f"{r['wrong']} ({r['wrong'] / r['n']:.0%})",
            number(r["lost"], 3),
            *(number(r["psnr"][m], 2) for m in ("auto", *models)),
        ]
        for r in result["rows"]
    ]
    head = ["images", "n", *(f"takes {m}" for m in models), "wrong by > 0.05 dB", "lost, dB", "PSNR, dB", *models]
    return "\n\n".join([table(head, lines), f"White and smooth noise on {result['clean']}. {machine(result['machine'])}"])


def labelling(result: Row) -> str:
    """What `benchmarks.labelling` measured, and what follows from it for a million images."""
    m = result["median"]
    hours = 1e6 / m["one_worker_mpixel_s"] / 3600
    lines = [
        ["Mpixel/s of one worker (one core)", f"{m['one_worker_mpixel_s']:.4f}", "measured"],
        ["two workers over one", f"{m['two_over_one']:.2f}x", "measured"],
        ["two workers over one, by processor time", f"{m['two_over_one_cpu']:.2f}x", "measured"],
        *([["engine over the bare network", f"{m['engine_over_bare']:.1%}", "measured"]] if len(result["rounds"]) > 2 else []),
        ["engine over the bare network, by processor time of its thread", f"{m['engine_over_bare_cpu']:.1%}", "measured"],
        *(
            [["measuring the noise, of the network's processor time", f"{m['measuring_over_bare_cpu']:.1%}", "measured"]]
            if "measuring_over_bare_cpu" in m
            else []
        ),
        ["time in which the device computes", f"{m['computing']:.1%}", "measured"],
        [f"peak memory, {result['images']} images, this teacher", f"{m['peak_bytes'] / 2**20:.0f} MiB", "measured"],
        *(
            [
                f"peak memory, {r['images']:,} images of {r['sizes']:,} sizes, a teacher of width 8",
                f"{r['peak_bytes'] / 2**20:.0f} MiB",
                "measured",
            ]
            for r in result.get("memory", ())
        ),
        ["bytes of labels per pixel, 8-bit colour", f"{m['label_bytes_per_pixel']:.2f}", "measured"],
        ["a million images of 1 Mpixel: core-hours", f"{hours:,.0f}", "extrapolated"],
        ["a million images of 1 Mpixel: hours of 1000 such workers", f"{hours / 1000:,.1f}", "extrapolated"],
        ["a million images of 1 Mpixel: TB of labels", f"{m['label_bytes_per_pixel']:.1f}", "extrapolated"],
    ]
    sides = f"{result['sides'][0]} to {result['sides'][1]}"
    note = f"{result['images']} colour images with sides of {sides} pixels, a teacher `light` of width {result['width']} with 4 modules; "
    note += f"medians; rounds: {len(result['rounds'])}."
    return "\n\n".join([table(["quantity", "value", "how"], lines), f"{note} {machine(result['machine'])}"])


def streaming(result: Row) -> str:
    lines = []
    for kind, name in (
        ("memory", "all labels in memory"),
        ("streaming", f"memory for {result['tars_in_memory']} of {result['tars']} tar files"),
    ):
        values, speeds = ([r[f"{kind}_{what}"] for r in result["rows"]] for what in ("psnr", "steps_s"))
        numbers = [number(x, 3) for x in (result[f"{kind}_psnr"], min(values), max(values))]
        lines.append([name, *numbers, f"{sum(speeds) / len(speeds):.1f}"])
    note = f"{len(result['rows'])} seeds, {result['steps']} steps, noisy images at {result['input_psnr']:.2f} dB. "
    note += f"Difference of the means {result['difference']:+.3f} dB, spread of the seeds {result['spread']:.3f} dB; "
    note += f"steps per second, median of the ratios: {result['speed']:.1%}."
    columns = ["training", "PSNR, dB: mean", "smallest", "largest", "steps/s"]
    return "\n\n".join([table(columns, lines), f"{note} {machine(result['machine'])}"])


PHOTOGRAPHS = (peers, photographs, choice, camera, quality)
SPEED = (cpu, gpu, engines, bundled, vnni, model, modules, labelling, streaming, speedrun)
TABLES: dict[str, Callable[..., str]] = {f.__name__: f for f in (*PHOTOGRAPHS, *SPEED, ablation, failures, int8, qat, reliability)}


def render(kind: str, result: Any) -> str:
    return TABLES[kind](result)
