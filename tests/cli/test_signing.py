"""`--content-credentials` of the commands that make pictures."""

import json

from tests.helpers.certificates import make_signer, read_manifest


def test_generate_and_batch_sign_and_record_no_key(generate, jedi, joint_model, tmp_path) -> None:
    signer = make_signer(tmp_path / "signer")
    words = ("--content-credentials", *signer.files)
    done = generate(*words)
    assert done.status == 0, done.err
    settings = (tmp_path / "out" / "settings.json").read_text()
    assert "key.pem" not in settings
    line = {"reference": "photo.png", "prompt": "a robot on the beach", "steps": 2}
    (tmp_path / "jobs.jsonl").write_text(json.dumps(line))
    options = ("--out", tmp_path / "batch", "--model", joint_model, "--device", "cpu")
    for made, kept in ((1, 0), (0, 1)):
        done = jedi("batch", tmp_path / "jobs.jsonl", *options, *words)
        assert f"{made} new pictures" in done.out, done.err
        assert f"{kept} were there already" in done.out
    for folder in ("out", "batch/00001"):
        data = (tmp_path / folder / "a-robot-on-the-beach_0.png").read_bytes()
        assert b"key.pem" not in data
        state, manifest = read_manifest(data, signer.root)
        (action,) = manifest["assertions"][0]["data"]["actions"]
        assert (state, action["description"]) == ("Trusted", "made with jedi-diffusion, model joint")


def test_wrong_credentials_are_told_before_a_model_is_loaded(generate, jedi, tmp_path) -> None:
    for done in (
        generate("--content-credentials", "none.pem", "none.key"),
        jedi("serve", "--content-credentials", "none.pem", "none.key"),
        jedi("batch", "jobs.jsonl", "--out", "out", "--content-credentials", "none.pem", "none.key"),
    ):
        assert (done.status, done.out) == (2, "")
        assert done.err == "jedi: none.pem cannot be read: No such file or directory.\n"
