"""What the iterative engine reaches, and what it does not: tables for docs/benchmarks.md.

Run from the checkout with `../shared` beside it, one thread, CPU seconds:
    OMP_NUM_THREADS=1 python benchmarks/refine.py [SECTION ...] [--seed 0] [--out DIR]
with the sections bench rules sweep positions network siemens size.
Every row uses the library's defaults; what a row changes stands in its name. Judging time is not counted.
"""

from __future__ import annotations

import argparse
import platform
import resource
import time
from pathlib import Path

import numpy as np
import torch
from refining import HEAD, PICTURES, SHARED, blur, centres, evaluate, simulate, solve

from ptycho_torch.refine import make_scan, reconstruct


def bench(seed: int) -> None:
    """The scan of ../shared/bench, its low-dose sibling and another seed; flat start, wrong probe."""
    print("\n### Bench scan, flat start, probe guess 35 % wrong\n\n" + HEAD)
    data = dict(np.load(SHARED / "bench" / "scan_subpixel.npz"))
    print(solve(data, "rPIE, defaults", watch=True, seed=seed))
    print(solve(data, "rPIE, 60 sweeps", watch=True, seed=seed, epochs=60))
    print(solve(data, "rPIE, amplitude noise", watch=True, seed=seed, rule_options={"noise": "amplitude"}))
    print(solve(data, "rPIE, plain Poisson score", watch=True, seed=seed, rule_options={"noise": "poisson"}))
    print(solve(data, "rPIE, step never lowered", watch=True, seed=seed, final_strength=1.0))
    print(solve(data, "rPIE, compact batches", watch=True, seed=seed, batches="compact"))
    # stand-ins for a trained network: the right probe, and an object blurred to about its measured error
    print(solve(data, "right probe, flat start", watch=True, seed=seed, probe=data["probe_true"]))
    blurred = blur(data["object_true"], 4.0)
    error = evaluate(blurred, (0, 0), data)["nrmse"]
    start = {"initial_object": blurred, "initial_origin_xy": (0, 0), "probe": data["probe_true"]}
    print(solve(data, f"right probe, blurred object (cNRMSE {error:.3f})", watch=True, seed=seed, **start))
    print(solve(simulate.simulate(photons=2e3), "2,000 photons, defaults", watch=True, seed=seed))
    print(solve(simulate.simulate(seed=seed + 1), "another scan (seed + 1), defaults", watch=True, seed=seed))


def rules(seed: int) -> None:
    """Every update rule with its own defaults."""
    print("\n### Update rules on the bench scan, 40 sweeps\n\n" + HEAD)
    data = dict(np.load(SHARED / "bench" / "scan_subpixel.npz"))
    for rule in ("epie", "rpie", "lsqml", "raar", "adam"):
        print(solve(data, rule, watch=True, seed=seed, rule=rule), flush=True)
    print(
        solve(
            data, "lsqml, amplitude", watch=True, seed=seed, rule="lsqml", rule_options={"noise": "amplitude"}
        )
    )
    print(
        solve(data, "lsqml, Poisson", watch=True, seed=seed, rule="lsqml", rule_options={"noise": "poisson"})
    )
    print(
        solve(
            data, "adam, Poisson", watch=True, seed=seed, rule="adam", rule_options={"objective": "poisson"}
        )
    )


def three_modes(data, rng):
    """Counts of the same object under three incoherent modes (70, 20, 10 % of the power)."""
    n = data["probe_true"].shape[0]
    x = np.arange(n) - n // 2
    modes = [data["probe_true"], data["probe_true"] * x, data["probe_true"] * x[:, None]]
    modes = [
        m / np.linalg.norm(m) * np.sqrt(share * 1e5) for m, share in zip(modes, (0.7, 0.2, 0.1), strict=True)
    ]
    corner = np.round(data["positions_px"]).astype(int)
    counts = []
    for (y, x0), d in zip(corner, data["positions_px"] - corner, strict=True):
        window = data["object_true"][y : y + n, x0 : x0 + n]
        waves = [np.fft.fft2(simulate.fourier_shift(m, d) * window, norm="ortho") for m in modes]
        counts.append(rng.poisson(np.fft.fftshift(sum(np.abs(w) ** 2 for w in waves))))
    return data | {"diffraction": np.array(counts, np.int32)}


def sweep(seed: int) -> None:
    """Dose, overlap, size, probe error, modes, dead pixels: defaults everywhere."""
    print("\n### The same settings elsewhere\n\n" + HEAD)
    for photons in (1e3, 1e4, 1e6, 1e9):
        counts = simulate.simulate(photons=photons, seed=seed)
        print(solve(counts, f"{photons:.0e} photons", seed=seed), flush=True)
    # the probe is about 20 px wide at N = 64
    for step, side in ((3.0, 40), (8.0, 18), (12.0, 13)):
        name = f"overlap about {1 - step / 20:.0%} (step {step:.0f} px)"
        print(
            solve(simulate.simulate(step=step, side=side, jitter=0.4 * step, seed=seed), name, seed=seed),
            flush=True,
        )
    for n, side in ((128, 14), (256, 8)):
        data = simulate.simulate(
            n=n, side=side, step=5.0 * n / 64, jitter=2.0 * n / 64, photons=1e5 * (n / 64) ** 2
        )
        print(solve(data, f"N = {n}", seed=seed), flush=True)
    data = dict(np.load(SHARED / "bench" / "scan_subpixel.npz"))
    bad = np.random.default_rng(seed).random(data["probe_true"].shape) < 0.05
    print(
        solve(
            data | {"diffraction": np.where(bad, 0, data["diffraction"])},
            "5 % dead pixels",
            bad=bad,
            seed=seed,
        )
    )
    mixed = three_modes(data, np.random.default_rng(seed))
    print(solve(mixed, "3 modes in the data, 1 solved", seed=seed))
    print(solve(mixed, "3 modes in the data, 3 solved", modes=3, seed=seed))


def position_error(true: np.ndarray, found: np.ndarray) -> str:
    """rms px after removing a common shift, a similarity, an affine map; then, shift removed, the median of
    all, the rms of inner positions and of those on the scan's edge.
    """
    centred = true - true.mean(0)
    away = (found - found.mean(0)) - centred
    x, y = centred.T
    turns = np.r_[np.c_[x, -y], np.c_[y, x]]
    flat = away.T.ravel()
    similar = (flat - turns @ np.linalg.lstsq(turns, flat, rcond=None)[0]).reshape(2, -1).T
    affine = away - centred @ np.linalg.lstsq(centred, away, rcond=None)[0]
    edge = np.abs(centred).max(1) > np.abs(centred).max() - 7
    rms = [np.sqrt(np.mean(np.sum(z**2, 1))) for z in (away, similar, affine, away[~edge], away[edge])]
    middle = np.median(np.hypot(*away.T))
    return " | ".join(f"{value:.3f}" for value in (*rms[:3], middle, *rms[3:]))


POSITION_CASES = (
    ("3 px rms, 1 % scale, 1 degree", 3.0, True, {"positions": "affine", "position_search_px": 4.0}, 80),
    ("right positions, affine", 0.0, False, {"positions": "affine"}, 40),
    ("right positions, free", 0.0, False, {"positions": "free"}, 40),
    ("1 % scale and 1 degree", 0.0, True, {"positions": "affine"}, 40),
    ("1 px rms, free", 1.0, False, {"positions": "free"}, 40),
)


def positions(
    seed: int, doses: tuple[float | None, ...] = (None, 1e6, 1e7, 1e9), cases: tuple = POSITION_CASES
) -> None:
    """Known position errors put in and what is left of them."""
    print("\n### Positions (px rms)\n")
    print(
        "| case | start, shift removed | end, shift removed | similarity | affine | median | inner | edge "
        "| cNRMSE | R | CPU s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    turn = np.deg2rad(1.0)
    map_ = 1.01 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    for name, rms, affine, options, epochs in cases:
        for photons in doses:
            label = "1e5" if photons is None else f"{photons:.0e}"
            data = (
                dict(np.load(SHARED / "bench" / "scan_subpixel.npz"))
                if photons is None
                else simulate.simulate(photons=photons, seed=seed)
            )
            true, rng = centres(data), np.random.default_rng(seed)
            start = (true - true.mean(0)) @ (map_.T if affine else np.eye(2)) + true.mean(0)
            start = start + rng.normal(0, rms / np.sqrt(2), true.shape) if rms else start
            clock = time.process_time()
            scan = make_scan(data["diffraction"], start, data["probe_guess"])
            result = reconstruct(scan, seed=seed, epochs=epochs, **options)
            spent = time.process_time() - clock
            error = evaluate(result.object, result.origin_xy, data)["nrmse"]
            print(
                f"| {label} photons: {name} | {position_error(true, start).split(' | ')[0]} | "
                f"{position_error(true, result.positions_xy)} | {error:.4f} | {result.r:.4f} | {spent:.1f} |",
                flush=True,
            )


OTHERS = (("gaussian_random_field", 6), ("lines", 6), ("cat_and_coins", 20), ("mosaic", 60))


def network(seed: int, cases: tuple[tuple[str, int], ...] = OTHERS) -> None:
    """The bench scan from the image of a network that saw other objects under the same probe."""
    from ptycho.config.config import ModelConfig, PyTorchExecutionConfig, TrainingConfig
    from ptycho.evaluation import evaluate as judged
    from ptycho.scan.raw_data import RawData
    from ptycho_torch.refine.network import start_from
    from ptycho_torch.workflows.components import run_cdi_example_torch
    from ptycho_torch.workflows.trained import TrainedModel

    print("\n### From a network trained on other objects with the same probe\n")
    data = dict(np.load(SHARED / "bench" / "scan_subpixel.npz"))
    n = data["probe_true"].shape[0]
    for name, epochs in cases:
        other = other_scan(name, data["probe_true"], seed)
        config = TrainingConfig(
            model=ModelConfig(N=n),
            nepochs=epochs,
            output_dir=Path(),
            scheduler="WarmupCosine",
            gradient_clip_val=1.0,
        )
        execution = PyTorchExecutionConfig(learning_rate=2e-3, accelerator="cpu", logger_backend="none")
        clock = time.process_time()
        _, _, trained = run_cdi_example_torch(other, None, config, execution_config=execution)
        training = time.process_time() - clock
        where = centres(data)
        raw = RawData.from_coords_without_pc(
            where[:, 0], where[:, 1], data["diffraction"], data["probe_guess"]
        )
        model = TrainedModel(trained["models"]["diffraction_to_obj"])
        clock = time.process_time()
        start = start_from(model, raw)
        seeing = time.process_time() - clock
        box = tuple(int(v) for v in data["roi"])
        error = judged(start.object, data["object_true"], box, origin_xy=start.origin_xy)
        print(
            f"{name}: {epochs} epochs in {training:.1f} CPU s; its image in {seeing:.2f} CPU s, "
            f"cNRMSE {error.nrmse:.3f}\n\n{HEAD}"
        )
        begin = {"initial_object": start.object, "initial_origin_xy": start.origin_xy, "probe": start.probe}
        for full in (8, 2):
            print(
                solve(
                    data, f"from the network, full_epochs {full}", True, seed=seed, full_epochs=full, **begin
                ),
                flush=True,
            )
    print(solve(data, "flat, same probe", True, seed=seed, probe=data["probe_true"]))
    print(solve(data, "flat, probe guess", True, seed=seed))


def other_scan(name: str, probe: np.ndarray, seed: int):
    """676 patterns of an object of the library under the bench scan's probe; 1,600 of a mosaic of four."""
    from ptycho.scan.raw_data import RawData
    from ptycho.simulation.objects import get_object

    rng = np.random.default_rng(seed + 7)
    n = len(probe)
    corners = simulate.make_positions(40 if name == "mosaic" else 26, 5.0, 2.0, 4, rng)
    side = int(np.ceil(corners.max())) + n + 4
    side += side % 2

    def make(kind: str, width: int) -> np.ndarray:
        return get_object(kind)((width, width), seed + 7, (0.7, 1.0), (0.0, 1.0))

    if name == "mosaic":
        photographs = make("cat_and_coins", side // 2)
        tiles = [photographs, make("gaussian_random_field", side // 2), make("lines", side // 2)]
        image = np.block([[tiles[0], tiles[1]], [tiles[2], photographs[::-1].T]])
    else:
        image = make(name, side)
    counts = np.empty((len(corners), n, n), np.int32)
    whole = np.round(corners).astype(int)
    for i, ((y, x), d) in enumerate(zip(whole, corners - whole, strict=True)):
        wave = np.fft.fft2(simulate.fourier_shift(probe, d) * image[y : y + n, x : x + n], norm="ortho")
        counts[i] = rng.poisson(np.fft.fftshift(np.abs(wave) ** 2))
    y, x = corners.T + n // 2
    return RawData.from_coords_without_pc(x, y, counts, probe)


def siemens(seed: int) -> None:
    """The measured star: R of the final object re-diffracted, 1 to 3 modes, and the options."""
    print("\n### Siemens star, analytic probe, flat start\n")
    print("| case | sweeps | CPU s | R | median R of a pattern |\n|---|---|---|---|---|")
    data = np.load(SHARED / "data" / "siemens_star_velociprobe.npz")
    where = np.stack([data["xcoords"], data["ycoords"]], -1)
    cases = [
        ("1 mode, 10 sweeps", {"epochs": 10}),
        ("1 mode", {}),
        ("2 modes", {"modes": 2}),
        ("3 modes", {"modes": 3}),
        ("1 mode, intensity", {"intensity": True}),
        ("1 mode, positions free", {"positions": "free"}),
        ("1 mode, background", {"background": True}),
    ]
    for name, options in cases:
        clock = time.process_time()
        result = reconstruct(make_scan(data["diff3d"], where, data["probeGuess"]), seed=seed, **options)
        spent = time.process_time() - clock
        PICTURES.append((f"Siemens {name}", np.where(result.coverage > 0.05, result.object, 0)))
        print(
            f"| {name} | {len(result.history)} | {spent:.1f} | {result.r:.4f} "
            f"| {np.median(result.r_map):.4f} |",
            flush=True,
        )


def size(seed: int) -> None:
    """10,000 positions at N = 128: memory and time a sweep, against 2,500."""
    print(
        "\n### Size, N = 128\n\n"
        "| positions | sweeps | CPU s | peak memory of the process, GiB |\n|---|---|---|---|"
    )
    rng = np.random.default_rng(seed)
    probe = simulate.make_probe(128, photons=1e5)
    for side in (50, 100):
        grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2) * 8.0 + 128
        counts = rng.poisson(3.0, (64, 128, 128)).astype(np.uint16)
        counts = np.tile(counts, (len(grid) // 64 + 1, 1, 1))[: len(grid)]
        clock = time.process_time()
        reconstruct(make_scan(counts, grid, probe), epochs=2, seed=seed)
        spent = time.process_time() - clock
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"| {len(grid)} | 2 | {spent:.1f} | {peak:.2f} |", flush=True)


def save_pictures(folder: Path) -> None:
    """Amplitude and phase of every reconstruction so far, one PNG each."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, image) in enumerate(PICTURES):
        figure, axes = plt.subplots(1, 2, figsize=(10, 5))
        inner = np.abs(image)[np.abs(image) > 0]
        axes[0].imshow(
            np.abs(image), cmap="gray", vmin=np.percentile(inner, 1), vmax=np.percentile(inner, 99)
        )
        axes[1].imshow(np.angle(image), cmap="gray")
        axes[0].set_title(f"{name}: amplitude")
        axes[1].set_title("phase, rad")
        figure.tight_layout()
        figure.savefig(folder / f"{number:02d}.png", dpi=70)
        plt.close(figure)


def main() -> None:
    """Run the sections named on the command line, all of them by default."""
    sections = {f.__name__: f for f in (bench, rules, sweep, positions, network, siemens, size)}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", choices=[[], *sections], default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for pictures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    cpu = names[0].split(":")[1].strip() if names else ""
    print(f"{platform.machine()} {cpu}, one thread, torch {torch.__version__}, seed {arguments.seed}")
    for name in arguments.sections or sections:
        sections[name](arguments.seed)
    if arguments.out:
        save_pictures(arguments.out)


if __name__ == "__main__":
    main()
