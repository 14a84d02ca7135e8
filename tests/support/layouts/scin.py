"""SCIN in small: signed case numbers, differentials as text, YES and blanks, NONE_IDENTIFIED, a file in two cases."""

from __future__ import annotations

from pathlib import Path

from dermiq.datamodules.sources.scin import SCIN
from support.small_data import write_csv, write_jpeg

RACES = "american_indian_or_alaska_native asian black_or_african_american hispanic_latino_or_spanish_origin " + (
    "middle_eastern_or_north_african native_hawaiian_or_pacific_islander white other_race prefer_not_to_answer"
)
FAMILIES = {
    "race_ethnicity": RACES,
    "textures": "raised_or_bumpy flat rough_or_flaky fluid_filled",
    "body_parts": "head_or_neck arm palm back_of_hand torso_front torso_back genitalia_or_groin buttocks leg "
    "foot_top_or_side foot_sole other",
    "condition_symptoms": "bothersome_appearance bleeding increasing_size darkening itching burning pain "
    "no_relevant_experience",
    "other_symptoms": "fever chills fatigue joint_pain mouth_sores shortness_of_breath no_relevant_symptoms",
}
CASES = (
    *"case_id source release year age_group sex_at_birth fitzpatrick_skin_type".split(),
    *(f"{family}_{suffix}" for family, suffixes in FAMILIES.items() for suffix in suffixes.split()),
    *"related_category condition_duration image_1_path image_2_path image_3_path".split(),
    *"image_1_shot_type image_2_shot_type image_3_shot_type combined_race".split(),
    "race_ethnicity_two_or_more_after_mitigation",
)
LABELS = (
    "case_id",
    *(f"dermatologist_gradable_for_skin_condition_{number}" for number in (1, 2, 3)),
    "dermatologist_skin_condition_on_label_name",
    "dermatologist_skin_condition_confidence",
    "weighted_skin_condition_label",
    *(f"dermatologist_gradable_for_fitzpatrick_skin_type_{number}" for number in (1, 2, 3)),
    *(f"dermatologist_fitzpatrick_skin_type_label_{number}" for number in (1, 2, 3)),
    *(
        f"{name}_{country}"
        for name in ("gradable_for_monk_skin_tone", "monk_skin_tone_label")
        for country in ("india", "us")
    ),
)
# case, files, sites, own type, rated types, Monk tones, differential
IMAGES = (
    (
        "-3205742176803893704",
        ("-11", "12", "13"),
        ("arm", "back_of_hand"),
        ("FST3", ("FST2", "FST4", "FST3"), ("4", "3")),
        {"Eczema": 0.41, "Inflicted skin lesions": 0.41, "Acute dermatitis, NOS": 0.18},
    ),
    ("4711", ("14",), (), ("NONE_IDENTIFIED", ("FST6", "", ""), ("10", "9")), {"SCC/SCCIS": 1.0}),
    ("-9", ("15", "-11"), ("leg",), ("", ("", "", ""), ("", "")), {"O/E - petechiae present": 0.33, "Purpura": 0.67}),
    ("86", ("16",), ("palm",), ("FST1", ("FST1", "FST2", ""), ("1", "1")), {}),
    ("87", ("17",), (), ("", ("", "", ""), ("", "")), None),
    (
        "88",
        ("18",),
        ("other",),
        ("FST5", ("FST5", "", ""), ("7", "6")),
        {"Remove from labeling tool": 0.5, "Acne": 0.5},
    ),
)


def write(root: Path) -> SCIN:
    """Six cases, four of them with a label; one of those without could be graded."""
    cases, labels = [], []
    for number, (case, files, sites, (own, rated, (india, us)), weights) in enumerate(IMAGES):
        known = dict.fromkeys((f"body_parts_{site}" for site in sites), "YES")
        paths = {f"image_{place}_path": f"dataset/images/{file}.png" for place, file in enumerate(files, start=1)}
        known |= paths | {"case_id": case, "source": "SCIN", "release": "1.0.0", "year": "2023"}
        known |= {"age_group": "AGE_UNKNOWN", "sex_at_birth": "OTHER_OR_UNSPECIFIED", "fitzpatrick_skin_type": own}
        cases.append([known.get(column, "") for column in CASES])
        told = {"case_id": case, "weighted_skin_condition_label": "" if weights is None else str(weights)}
        told |= {"dermatologist_gradable_for_skin_condition_1": "DEFAULT_YES_IMAGE_QUALITY_SUFFICIENT"}
        if weights is None:
            told["dermatologist_gradable_for_skin_condition_1"] = "NO_IMAGE_QUALITY_INSUFFICIENT"
        told |= dict(zip(LABELS[10:13], rated, strict=True))
        told |= {"monk_skin_tone_label_india": india and f"{india}.0", "monk_skin_tone_label_us": us}
        labels.append([told.get(column, "") for column in LABELS])
        for file in files:
            write_jpeg(root / "dataset" / "images" / f"{file}.png", number)
    write_csv(root / "dataset" / "scin_cases.csv", CASES, cases)
    write_csv(root / "dataset" / "scin_labels.csv", LABELS, reversed(labels))
    return SCIN(str(root))
