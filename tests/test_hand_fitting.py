"""Inverse kinematics: known hands are found again from their landmarks alone, within the joints' limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from render.body import load_body
from render.hand_estimation import fitting
from render.hand_estimation.fitting import Observations, fit_track, landmark_weights
from render.hand_estimation.hand_model import HandModel, HandPose, hand_model
from render.hands import TIP_VERTICES
from render.rotations import matrix_from_axis_angle
from tests.helpers_hands import moving_hand, overlap, signed_volume, silhouette

FOCAL, WIDTH, HEIGHT = 520.0, 720, 480
MODELS = {side: hand_model(load_body(), side) for side in (False, True)}


def observe(model: HandModel, hands: HandPose, noise_px: float = 0.0, seed: int = 0) -> Observations:
    """What a perfect landmark network would see of hands, with noise in the image."""
    rng = np.random.default_rng(seed)
    landmarks = model.pose(hands).landmarks
    pixels = FOCAL * landmarks[..., :2] / landmarks[..., 2:]
    return Observations(
        frame=np.arange(len(hands)),
        pixels=pixels + noise_px * rng.normal(size=pixels.shape),
        world=landmarks - landmarks.mean(axis=1, keepdims=True),
        weight=np.ones(pixels.shape[:2]),
    )


def errors_px(model: HandModel, hands: HandPose, seen: Observations) -> np.ndarray:
    landmarks = model.pose(hands).landmarks
    return np.linalg.norm(FOCAL * landmarks[..., :2] / landmarks[..., 2:] - seen.pixels, axis=-1)


@pytest.mark.parametrize("is_right", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_known_hand_is_found_again(is_right: bool, seed: int) -> None:
    model = MODELS[is_right]
    truth = moving_hand(model, seed=seed)
    seen = observe(model, truth)
    fit = fit_track(model, seen, FOCAL)
    assert errors_px(model, fit.hands, seen).mean() < 1.0
    assert (fit.hands.angles >= model.lower - 1e-9).all()
    assert (fit.hands.angles <= model.upper + 1e-9).all()
    faces = model.body.hands[int(is_right)].faces
    want, found = model.mesh(truth)[0], model.mesh(fit.hands)[0]
    for frame in (0, 6, 11):
        mask = silhouette(want[frame], faces, FOCAL, WIDTH, HEIGHT)
        assert mask.sum() > 3000
        assert overlap(mask, silhouette(found[frame], faces, FOCAL, WIDTH, HEIGHT)) > 0.93


@pytest.mark.parametrize("is_right", [False, True])
def test_depths_of_the_wrong_sign_do_not_spoil_the_image(is_right: bool) -> None:
    """The network often takes the back of a hand for its palm; the mirrored start then explains the landmarks."""
    model = MODELS[is_right]
    truth = moving_hand(model, seed=3)
    seen = observe(model, truth)
    wrong = Observations(seen.frame, seen.pixels, seen.world * (1, 1, -1), seen.weight)
    hands = fit_track(model, wrong, FOCAL).hands
    assert errors_px(model, hands, seen).mean() < 2.0
    faces = model.body.hands[int(is_right)].faces
    masks = [silhouette(model.mesh(each)[0][5], faces, FOCAL, WIDTH, HEIGHT) for each in (truth, hands)]
    assert overlap(*masks) > 0.85


def test_landmarks_outside_the_picture_count_little() -> None:
    model = MODELS[True]
    truth = moving_hand(model)
    seen = observe(model, truth)
    pixels = seen.pixels + np.array([WIDTH / 2, HEIGHT / 2])
    edge = int(np.quantile(pixels[..., 1], 0.8))
    weight = landmark_weights(pixels, (0, 0, WIDTH, edge))
    outside = weight < 1
    assert 0.05 < outside.mean() < 0.4
    guessed = seen.pixels + np.where(outside[..., None], (25.0, 30.0), 0.0)
    trusting = fit_track(model, Observations(seen.frame, guessed, seen.world, np.ones_like(weight)), FOCAL)
    careful = fit_track(model, Observations(seen.frame, guessed, seen.world, weight), FOCAL)
    inside_error = [errors_px(model, each.hands, seen)[~outside].mean() for each in (trusting, careful)]
    assert inside_error[1] < 0.6 * inside_error[0]


def test_neighbouring_frames_steady_a_noisy_track() -> None:
    model = MODELS[False]
    truth = moving_hand(model, frames=20)
    seen = observe(model, truth, noise_px=4.0)
    together = fit_track(model, seen, FOCAL).hands
    alone = [
        fit_track(
            model, Observations(*(getattr(seen, name)[[n]] for name in ("frame", "pixels", "world", "weight"))), FOCAL
        )
        for n in range(20)
    ]
    single = np.concatenate([each.hands.angles for each in alone])
    assert np.abs(np.diff(together.angles, axis=0)).mean() < 0.7 * np.abs(np.diff(single, axis=0)).mean()
    assert errors_px(model, together, seen).mean() < 8.0


def test_a_frame_whose_own_start_leads_nowhere_is_helped_by_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[True]
    truth = moving_hand(model, seed=2)
    seen = observe(model, truth, noise_px=2.0)
    own_start = fitting._Problem.start

    def upside_down(problem: fitting._Problem) -> HandPose:
        hands = own_start(problem)
        hands.orientation[5] = hands.orientation[5] @ np.diag([-1.0, 1.0, -1.0])
        return hands

    monkeypatch.setattr(fitting._Problem, "start", upside_down)
    errors = errors_px(model, fit_track(model, seen, FOCAL).hands, seen).mean(axis=1)
    assert errors[5] < 2 * np.median(errors)


def test_a_wrist_that_the_first_pose_misses_is_not_given_up() -> None:
    """A landmark a third of a palm off pulls the hand along: it is no outlier while the pose is still wrong."""
    model = MODELS[True]
    truth = moving_hand(model, seed=1)
    seen = observe(model, truth)
    pixels = seen.pixels.copy()
    palm = np.linalg.norm(pixels[:, 9] - pixels[:, 0], axis=-1)
    pixels[:, 0] += 0.3 * palm[:, None] * (1.0, 0.0)
    hands = fit_track(model, Observations(seen.frame, pixels, seen.world, seen.weight), FOCAL).hands
    wrist = model.pose(hands).landmarks[:, 0]
    left = np.linalg.norm(FOCAL * wrist[:, :2] / wrist[:, 2:] - pixels[:, 0], axis=-1)
    assert (left / palm).mean() < 0.13


def test_same_landmarks_give_the_same_bytes() -> None:
    model = MODELS[True]
    seen = observe(model, moving_hand(model), noise_px=2.0)
    first, second = (model.mesh(fit_track(model, seen, FOCAL).hands)[0] for _ in range(2))
    assert first.tobytes() == second.tobytes()


@settings(max_examples=15, deadline=None)
@given(st.booleans(), st.integers(0, 1000))
def test_derivatives_are_those_of_the_residuals(is_right: bool, seed: int) -> None:
    model = MODELS[is_right]
    hands = moving_hand(model, frames=2, seed=seed)
    problem = fitting._Problem(model, observe(model, hands, noise_px=15.0, seed=seed), FOCAL)
    _, derivative = problem._linearised(hands, None)
    moved = problem._point_derivatives(model.pose(hands), hands)
    step = 1e-6
    for column in range(derivative.shape[2]):
        change = np.zeros((2, derivative.shape[2]))
        change[:, column] = step
        nudged = model.pose(problem._moved(hands, change)).landmarks
        numeric = (nudged - model.pose(hands).landmarks) / step
        np.testing.assert_allclose(moved[..., column], numeric, atol=2e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_left_hand_is_the_mirror_image_of_the_right(seed: int) -> None:
    rng = np.random.default_rng(seed)
    right, left = MODELS[True], MODELS[False]
    angles = right.lower + rng.random((1, right.num_hinges)) * (right.upper - right.lower)
    turn = matrix_from_axis_angle(rng.normal(size=(1, 3)))
    flip = np.diag([-1.0, 1.0, 1.0])
    place = np.array([[0.1, 0.0, 0.5]])
    points = right.pose(HandPose(turn, place, angles)).landmarks
    mirrored = left.pose(HandPose(flip @ turn @ flip, place @ flip, angles)).landmarks
    np.testing.assert_allclose(mirrored, points @ flip, atol=1e-3)  # the stand-in body is symmetric to 1 mm


@pytest.mark.parametrize("is_right", [False, True])
def test_mesh_follows_its_key_points_and_faces_outwards(is_right: bool) -> None:
    model = MODELS[is_right]
    hands = moving_hand(model, frames=3, seed=5)
    vertices, pose = model.mesh(hands)
    points = model.pose(hands).points
    part = model.body.hands[int(is_right)]
    tips = np.searchsorted(part.vertex_ids, TIP_VERTICES[int(is_right)])
    # Tips are skinned almost wholly to the last bone.
    np.testing.assert_allclose(vertices[:, tips], points[:, 4::4], atol=4e-3)
    assert pose.shape == (3, 45)
    for frame in range(3):
        assert signed_volume(vertices[frame].astype(np.float64) - points[frame, 0], part.faces) > 1e-4


def test_fingers_bend_towards_the_palm() -> None:
    """In the rest pose the palm looks down: a bent finger's tip lies below a straight one's, on either side."""
    for model in MODELS.values():
        straight = HandPose(np.eye(3)[None], np.zeros((1, 3)), np.zeros((1, model.num_hinges)))
        bent = HandPose(np.eye(3)[None], np.zeros((1, 3)), (model.usual + 0.5 * (model.upper - model.usual))[None])
        tips = [model.pose(each).points[0, 4::4] for each in (straight, bent)]
        assert (tips[1][1:, 1] < tips[0][1:, 1] - 0.02).all()
        thumb_to_pinky = [
            np.linalg.norm(model.pose(each).points[0, 4] - model.pose(each).points[0, 17]) for each in (straight, bent)
        ]
        assert thumb_to_pinky[1] < thumb_to_pinky[0]
