"""The one table of all that can go wrong: what each code means, why it happens, what to do.

The command line's answers take their titles from it, `vidkit explain CODE` and docs/troubleshooting.md are printed from
it (`vidkit.troubleshooting`). What can be told only from a request (the nearest valid value, what would fit, how much
is missing) is computed where the error is raised, and stands in the answer's suggestions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Category = Literal["input", "system", "generation", "critical"]


@dataclass(frozen=True)
class ErrorKind:
    """One code. title: of the answer's `error` key; meaning and why: Markdown sentences; remedies: best first."""

    title: str
    meaning: str
    why: str
    remedies: tuple[str, ...]


#: what each category's errors have in common
CATEGORIES: Final[dict[Category, str]] = {
    "input": "What was asked for cannot be used. Nothing was loaded or written; change the request and send it again.",
    "system": "Something is missing on this machine. Set it up once, and the same request runs.",
    "generation": "The request was in order, but no clip came of it. Nothing half-written is left. Other "
    "settings, often only one of those that the answer suggests, or a second try help.",
    "critical": "The machine or the process failed. Finished clips and settings are whole; look at the machine before "
    "the next try.",
}

#: category -> code -> what it is; codes are stable, programs know errors by them
CODES: Final[dict[Category, dict[str, ErrorKind]]] = {
    "input": {
        "invalid_json": ErrorKind(
            "Invalid JSON",
            "The request is no JSON object.",
            "A quote, comma or brace is missing; or a Windows path has single backslashes. A path that ends in one "
            '(`"D:\\out\\"`) swallows the quote behind it.',
            (
                "Send the request on standard input, where no shell changes it: `vidkit generate - < request.json`.",
                "Double the backslashes of Windows paths, or write them with `/`.",
            ),
        ),
        "invalid_request": ErrorKind(
            "Invalid request",
            "The command line, the sweep file or the notebook cannot be understood as a request.",
            "An argument is missing or one too many; a file that it names cannot be read; parts exclude each other.",
            ("Read the message: it names the part.", "See `vidkit COMMAND --help`."),
        ),
        "unknown_parameter": ErrorKind(
            "Unknown parameter",
            "There is no parameter of this name.",
            "A typing error, or a parameter of another program.",
            (
                "Take the name that the answer suggests.",
                "`vidkit generate --help` lists all; `numFrames` and `num_frames` are the same.",
            ),
        ),
        "missing_parameter": ErrorKind(
            "Missing parameter",
            "A parameter that every request needs was not given.",
            "Only `imagePath` and `prompt` have no default.",
            ("Give it. To try without a picture of your own: `--image-path example:photo`.",),
        ),
        "invalid_value": ErrorKind(
            "Invalid value",
            "A parameter has a value of the wrong kind.",
            "A text where a number is wanted, a word that is none of the choices, or values that exclude each other.",
            ("The answer names the values that are possible.",),
        ),
        "out_of_range": ErrorKind(
            "Parameter out of range",
            "A number is smaller or larger than it may be.",
            "Each parameter has bounds, and a model may narrow them: it was not made for other values.",
            ("Take the nearest possible value; the answer names it.",),
        ),
        "empty_prompt": ErrorKind(
            "Empty prompt",
            "The prompt has no words.",
            "Every request needs one, also for Stable Video Diffusion, which ignores it.",
            ("Say what should happen: `slow zoom in, golden hour light`.",),
        ),
        "invalid_size": ErrorKind(
            "Invalid size",
            "The model cannot make frames of this width and height.",
            "Models work on blocks of pixels, so both sides must be multiples of 8 or 64; an MP4 needs even sides.",
            ("Take the nearest size; the answer names it. The picture is fitted to it (`fit`: crop, pad or stretch).",),
        ),
        "image_not_found": ErrorKind(
            "Image not found",
            "There is no picture at this path.",
            "It was moved or mistyped, or the path is relative to another folder than the present one.",
            (
                "Give the full path. In WSL, Windows paths such as `C:\\Users\\me\\photo.jpg` are understood.",
                "Check that the drive or the network folder is there.",
            ),
        ),
        "invalid_image": ErrorKind(
            "Invalid image",
            "The file is no picture that can be read.",
            "It is damaged, cut short or empty, or of another format (HEIC, RAW, PDF, ...), whatever its name ends in.",
            (
                "Open it in a picture editor and save it as PNG or JPEG.",
                "If it was copied or downloaded, copy it again.",
            ),
        ),
        "image_too_large": ErrorKind(
            "Image too large",
            "The picture has more pixels or bytes than is safe to open.",
            "The frames are far smaller than it anyway; a limit keeps hostile files from filling the memory.",
            ("Make it smaller: 4,000 pixels a side are more than any model uses.",),
        ),
        "unsafe_image": ErrorKind(
            "Unsafe image",
            "The safety checker takes the input picture for adult content. Nothing was computed.",
            "It compares what a picture looks like with what adult pictures do, and is wrong at times, either way.",
            (
                "Choose another picture.",
                "Of full age and with the consent of those shown: `vidkit acknowledge`, then "
                "`vidkit config safety.checker off`.",
            ),
        ),
        "over_limit": ErrorKind(
            "Over a limit of this machine",
            "The request wants more than the user of this machine lets one take.",
            "`limits` in config.json, or a `VIDKIT_LIMIT_...` variable, caps frames, pixels, time, memory or disk.",
            ("Take the values that the answer suggests.", "Or raise the limit; 0 is no limit."),
        ),
        "path_not_allowed": ErrorKind(
            "Path not allowed",
            "A picture, a model or the clip would lie outside of the folders that requests may use here.",
            "`allowedFolders` in config.json, or `VIDKIT_ALLOWED_FOLDERS`, confines requests to some folders and the "
            "data folder, wherever `..`, links or a registered model lead.",
            ("Use a path in one of the folders that the answer names.", "Or allow its folder there."),
        ),
        "output_exists": ErrorKind(
            "Output file exists",
            "Something of this name is there, and was left as it is.",
            "Nothing is overwritten unless it is asked for.",
            ("Choose another name, or leave `outputPath` out for a name of its own.", "Or `--overwrite`."),
        ),
        "clip_not_found": ErrorKind(
            "Clip not found",
            "There is no clip at this path.",
            "It was moved, deleted or mistyped.",
            ("`vidkit runs FOLDER` lists what a folder of runs holds.",),
        ),
        "invalid_clip": ErrorKind(
            "Invalid clip",
            "The file is no clip whose settings can be read.",
            "Another program made it; it was made with `--bare`; or a chat or video service stripped its tags.",
            ("Use the original file that vidkit wrote.", "Keep `clip.mp4.json` beside it: it holds the same settings."),
        ),
    },
    "system": {
        "python_not_found": ErrorKind(
            "Python not found",
            "The Python that was started cannot run vidkit.",
            "It is older than 3.11, or vidkit was installed into another one (each virtual environment is one of its "
            "own). A front end that finds no Python at all gets no answer, and should tell the same.",
            (
                "Start the Python of the environment that vidkit is in: `.venv/bin/python`, on Windows "
                "`.venv\\Scripts\\python.exe`.",
                "Or install vidkit there: `python -m pip install .` in vidkit's folder.",
            ),
        ),
        "cuda_not_available": ErrorKind(
            "CUDA not available",
            "A GPU was asked for, and torch sees none.",
            "torch is a build for the CPU; the NVIDIA driver is missing or too old; or `CUDA_VISIBLE_DEVICES` hides "
            "the GPU. In WSL the driver is installed on Windows, not in Linux.",
            (
                "`nvidia-smi` must list the GPU. If it does not, install the driver.",
                "Install a CUDA build of torch: pytorch.org/get-started has the command.",
                "`VIDKIT_DEVICE=auto` uses the CPU where there is no GPU: enough for the bundled models only.",
            ),
        ),
        "model_not_found": ErrorKind(
            "Model not found",
            "A model that the request needs is not on this machine.",
            "It was not downloaded yet, was moved, or its name was mistyped. Requests never download by themselves.",
            (
                "`vidkit models list` shows what is here, `vidkit models list --available` what can be had by name.",
                "`vidkit models download svd-xt` fetches one; `vidkit models add PATH` registers one that is here.",
                "Without `baseModel` a bundled demonstration model is used.",
            ),
        ),
        "invalid_model": ErrorKind(
            "Invalid model",
            "What is there is not the model that is wanted here, or it is damaged.",
            "A download was cut short; it is a model of another kind (SDXL, a LoRA as base model, ...); or its parts "
            "do not belong together: AnimateDiff needs a Stable Diffusion 1.5 base and a motion adapter made for it.",
            (
                "`vidkit models inspect PATH` says what it is and what it goes with.",
                "`vidkit models verify` finds damaged files; fetch those again.",
            ),
        ),
        "missing_dependency": ErrorKind(
            "Missing dependency",
            "A program or library that is needed is not there, or does not work.",
            "An optional part was not installed (Ray), or another version was put over it (torch, ffmpeg).",
            ("Run the pip command in the answer, in vidkit's own environment.",),
        ),
        "output_not_writable": ErrorKind(
            "Output folder not writable",
            "The clip, or another file, cannot be written where it was to go.",
            "The folder belongs to another user, is read-only, or a file of this name is open in a player.",
            ("Choose a folder of your own; without `outputPath` clips go to `VIDKIT_HOME/output`.",),
        ),
        "invalid_config": ErrorKind(
            "Invalid settings file",
            "A settings file or variable of vidkit's cannot be understood.",
            "It was edited by hand, or a newer vidkit wrote it. It is left as it is.",
            ("Mend the place that the message names, or move the file away: the defaults then hold.",),
        ),
        "acknowledgement_needed": ErrorKind(
            "Acknowledgement needed",
            "Models marked as made for adult pictures, and turning the safety checker off, need it once.",
            "The registry has `nsfw: true` for a model of the request, or `safety.checker` is `off`; and nobody has "
            "acknowledged age, responsibility, consent and law here, or their text has changed since.",
            (
                "`vidkit acknowledge` shows the text and asks; in Python `vidkit.acknowledge()`; the control panel "
                "asks by itself.",
                "Or choose another model, and leave the checker on: `vidkit config safety.checker auto`.",
            ),
        ),
        "no_safety_checker": ErrorKind(
            "No safety checker",
            "Every clip is to be checked, and no safety checker is installed.",
            "`safety.checker` is `on`, in config.json or as `VIDKIT_SAFETY_CHECKER`.",
            (
                "`vidkit models download safety-checker` installs one.",
                "`vidkit config safety.checker auto` has clips checked only where there is one.",
            ),
        ),
        "no_network": ErrorKind(
            "No network",
            "The server that a model is fetched from cannot be reached.",
            "There is no connection, a proxy is needed, or `HF_HUB_OFFLINE` is set. Only downloads need a network.",
            ("Set `HTTPS_PROXY` where a proxy is needed.", "Run the command again: it goes on where it stopped."),
        ),
        "access_denied": ErrorKind(
            "Access denied",
            "The server has the model, but not for everybody.",
            "Its licence has to be accepted once on its page, and the download must say who you are.",
            (
                "Accept the licence on the model's page, then `hf auth login`.",
                "A model-sharing site's token goes into `CIVITAI_API_TOKEN`.",
            ),
        ),
        "download_failed": ErrorKind(
            "Download failed",
            "A model could not be fetched whole.",
            "The server failed or gave something else than it promised. What came is kept, what is wrong is not used.",
            ("Run the command again: it goes on where it stopped.",),
        ),
    },
    "generation": {
        "out_of_memory": ErrorKind(
            "CUDA out of memory",
            "The request needs more of the GPU's memory than is free.",
            "Memory grows with frames times pixels. All that leaves the picture as it is (parts waiting in the host's "
            "memory, slices, half of guidance at a time) was tried before. Browsers, games and other AI tools take "
            "memory of the same GPU.",
            (
                "Take a suggestion of the answer: each was reckoned to fit.",
                "`--allow-changes` makes the clip fit by itself, with as little change as possible.",
                "`vidkit plan ...` takes the same request and says at once what fits: a 12 GB card makes SVD-XT's 25 "
                "frames of 1024x576.",
                "Close what else uses the GPU; `nvidia-smi` lists it.",
            ),
        ),
        "out_of_host_memory": ErrorKind(
            "Out of memory",
            "The request needs more of the machine's main memory than is free.",
            "On a CPU all is computed there. With a GPU, parts of the model wait there: 4 GiB of SVD-XT.",
            (
                "Take a suggestion of the answer.",
                "Close other programs. In WSL, raise `memory` in `.wslconfig`: half of the machine's is the default.",
            ),
        ),
        "corrupted_output": ErrorKind(
            "Corrupted output",
            "The frames came out as no numbers, or all of one colour, so no clip was written.",
            "Numbers too large for half precision (which was tried again in single precision), a damaged model file, "
            "or parts of models that do not belong together.",
            ("Try the seed that the answer suggests.", "`vidkit models verify` tells whether the files are whole."),
        ),
        "unsafe_output": ErrorKind(
            "Unsafe output",
            "The safety checker takes frames of the finished clip for adult content. Nothing was written.",
            "It compares what a frame looks like with what adult pictures do, and is wrong at times, either way.",
            (
                "Try another seed, prompt or picture.",
                "Of full age and with the consent of those shown: `vidkit acknowledge`, then "
                "`vidkit config safety.checker off`.",
            ),
        ),
        "timeout": ErrorKind(
            "Timeout",
            "The clip was not done within the time limit: 10 minutes, unless it was set otherwise.",
            "Too many steps, frames or pixels for this machine. Waiting for the GPU does not count.",
            (
                "Take a suggestion of the answer: reckoned from the pace that was measured.",
                "`VIDKIT_LIMIT_TIME=1800` (seconds), or `limits.time` in config.json, gives it more; 0 is no limit.",
            ),
        ),
        "encoding_failed": ErrorKind(
            "Video encoding failed",
            "The frames were made, but ffmpeg could not write a video of them.",
            "An ffmpeg of another build (`IMAGEIO_FFMPEG_EXE`), or one that was stopped.",
            ("Unset `IMAGEIO_FFMPEG_EXE`: vidkit brings its own ffmpeg.", "Try another `outputFormat`."),
        ),
        "cancelled": ErrorKind(
            "Cancelled",
            "It was stopped on demand. Nothing was written.",
            "Ctrl-C, the panel's Cancel, or the front end's signal.",
            ("Run it again when you like; in the panel the model is still loaded.",),
        ),
    },
    "critical": {
        "disk_full": ErrorKind(
            "Disk full",
            "There is no room for what was to be written. No half-written file is left.",
            "The disk, or your part of it (quota), is full; a quarter of a GiB is also kept free (`limits.disk`).",
            (
                "Free as much as the answer says is missing. Models are what is large: `vidkit models list`.",
                "Or write to another disk: `outputPath`, or `VIDKIT_HOME` for everything.",
            ),
        ),
        "process_killed": ErrorKind(
            "Process killed",
            "The process that computes ended without an answer.",
            "Most often the system ended it because the main memory ran out (SIGKILL); a crash in a library "
            "(SIGSEGV) or another program can do it too. The next request starts a new one.",
            (
                "Run it again. If it dies again, take one of the smaller requests that the answer suggests.",
                "On Linux `journalctl -k | grep -i oom` shows whether memory was the reason; more swap helps.",
            ),
        ),
        "gpu_driver": ErrorKind(
            "GPU driver error",
            "The GPU or its driver failed while it computed.",
            "The driver crashed or was reset (overheating, overclocking, sleep, an update without a restart), or does "
            "not match this torch. The process that met it is of no more use, and the next request gets a new one.",
            (
                "Run it again; then restart the machine.",
                "Update the NVIDIA driver; set overclocked memory back.",
                "`vidkit doctor` checks whether GPU, driver and torch go together.",
            ),
        ),
        "internal_error": ErrorKind(
            "Internal error",
            "Something happened that vidkit does not know.",
            "A defect of vidkit or of a library.",
            ("Report it, with the request and the traceback that stands on stderr.",),
        ),
    },
}
