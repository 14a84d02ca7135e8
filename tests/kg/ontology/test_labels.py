"""Labels of the data sets that people train on name conditions of the graph."""

import pytest

from dermiq.kg import load_graph

GRAPH = load_graph()
LABELS = {
    "Fitzpatrick17k": """acanthosis nigricans|acne|acne vulgaris|acquired autoimmune bullous diseaseherpes gestationis|
        acrodermatitis enteropathica|actinic keratosis|allergic contact dermatitis|aplasia cutis|
        basal cell carcinoma|basal cell carcinoma morpheiform|becker nevus|behcets disease|calcinosis cutis|
        cheilitis|congenital nevus|dariers disease|dermatofibroma|dermatomyositis|
        disseminated actinic porokeratosis|drug eruption|drug induced pigmentary changes|dyshidrotic eczema|
        eczema|ehlers danlos syndrome|epidermal nevus|epidermolysis bullosa|erythema annulare centrifigum|
        erythema elevatum diutinum|erythema multiforme|erythema nodosum|factitial dermatitis|
        fixed eruptions|folliculitis|fordyce spots|granuloma annulare|granuloma pyogenic|
        hailey hailey disease|halo nevus|hidradenitis|ichthyosis vulgaris|incontinentia pigmenti|
        juvenile xanthogranuloma|kaposi sarcoma|keloid|keratosis pilaris|langerhans cell histiocytosis|
        lentigo maligna|lichen amyloidosis|lichen planus|lichen simplex|livedo reticularis|
        lupus erythematosus|lupus subacute|lyme disease|lymphangioma|malignant melanoma|melanoma|milia|
        mucinosis|mucous cyst|mycosis fungoides|myiasis|naevus comedonicus|necrobiosis lipoidica|
        nematode infection|neurodermatitis|neurofibromatosis|neurotic excoriations|neutrophilic dermatoses|
        nevocytic nevus|nevus sebaceous of jadassohn|papilomatosis confluentes and reticulate|paronychia|
        pediculosis lids|perioral dermatitis|photodermatoses|pilar cyst|pilomatricoma|
        pityriasis lichenoides chronica|pityriasis rosea|pityriasis rubra pilaris|porokeratosis actinic|
        porokeratosis of mibelli|porphyria|port wine stain|prurigo nodularis|psoriasis|pustular psoriasis|
        pyogenic granuloma|rhinophyma|rosacea|sarcoidosis|scabies|scleroderma|scleromyxedema|
        seborrheic dermatitis|seborrheic keratosis|solid cystic basal cell carcinoma|
        squamous cell carcinoma|stasis edema|stevens johnson syndrome|striae|sun damaged skin|
        superficial spreading melanoma ssm|syringoma|telangiectases|tick bite|tuberous sclerosis|tungiasis|
        urticaria|urticaria pigmentosa|vitiligo|xanthomas|xeroderma pigmentosum""",
    "DDI": """melanocytic nevi|verruca vulgaris|epidermal cyst|squamous cell carcinoma in situ|dysplastic nevus|
        benign keratosis|blue nevus|melanoma in situ|acrochordon|melanoma acral lentiginous|neurofibroma|
        squamous cell carcinoma keratoacanthoma|basal cell carcinoma superficial|
        basal cell carcinoma nodular|eczema spongiotic dermatitis|metastatic carcinoma|lipoma|angioma|
        arteriovenous hemangioma|angioleiomyoma|atypical spindle cell nevus of reed|
        pigmented spindle cell nevus of reed|lichenoid keratosis|solar lentigo|
        seborrheic keratosis irritated|verruciform xanthoma|subcutaneous t cell lymphoma|
        syringocystadenoma papilliferum|xanthogranuloma|tinea pedis|trichilemmoma|trichofolliculoma|
        cellular neurothekeoma|clear cell acanthoma|coccidioidomycosis|condyloma accuminatum|abscess|
        acquired digital fibrokeratoma|acral melanotic macule|atypical fibroxanthoma|
        blastic plasmacytoid dendritic cell neoplasm|eccrine poroma|fibrous papule|
        focal acral hyperkeratosis|foreign body granuloma|glomangioma|graft vs host disease|hematoma|
        inverted follicular keratosis|leukemia cutis|lymphocytic infiltrations|molluscum contagiosum|
        morphea|neuroma|nevus lipomatosus superficialis|onychomycosis|reactive lymphoid hyperplasia|
        sebaceous carcinoma|tattoo|trichoepithelioma|wart""",
    "SCIN": """Eczema|Allergic Contact Dermatitis|Insect Bite|Urticaria|Psoriasis|Folliculitis|
        Irritant Contact Dermatitis|Tinea|Herpes Zoster|Drug Rash|Herpes Simplex|Acute dermatitis, NOS|
        Acute and chronic dermatitis|Tinea Versicolor|Impetigo|Pityriasis rosea|Viral Exanthem|Miliaria|
        Lichen planus/lichenoid eruption|Lichen Simplex Chronicus|Cellulitis|Acne|Stasis Dermatitis|
        Leukocytoclastic Vasculitis|CD - Contact dermatitis|SCC/SCCIS|Syphilis|Photodermatitis|
        O/E - ecchymoses present|Intertrigo|Abscess|Post-Inflammatory hyperpigmentation|Xerosis|
        Pigmented purpuric eruption|Purpura|Candida|Lichen nitidus|Cutaneous lupus|Hidradenitis""",
    "DermNet": """acne|rosacea|actinic keratosis|basal cell carcinoma|atopic dermatitis|cellulitis|impetigo|eczema|
        exanthems|drug eruptions|herpes|lupus|melanoma|nevi|moles|nail fungus|poison ivy|contact dermatitis|
        psoriasis|lichen planus|scabies|lyme disease|bites|seborrheic keratoses|tinea|ringworm|candidiasis|
        urticaria|hives|warts|molluscum""",
    "ISIC and MILK10k": """MEL|NV|BCC|AK|AKIEC|BKL|DF|VASC|SCC|SCCKA|nevus|angiokeratoma|clear cell acanthoma|
        hemangioma|
        lentigo NOS|melanoma metastasis|pigmented benign keratosis|sebaceous hyperplasia|verruca|
        vascular lesion|basal cell carcinoma|dermatofibroma""",
}


@pytest.mark.parametrize("data", LABELS)
def test_every_label_that_names_a_disease_is_a_condition(data):
    labels = [" ".join(label.split()) for label in LABELS[data].split("|")]
    assert [label for label in labels if GRAPH.lookup(label) is None] == []


def test_the_words_of_a_name_may_be_turned_around():
    found = GRAPH.lookup("melanoma, acral lentiginous")
    assert found is not None
    assert found.id == "acral_lentiginous_melanoma"
    assert GRAPH.lookup("carcinoma") is None


def test_there_are_many_conditions_and_each_has_facts():
    assert len(GRAPH.conditions) >= 240
    assert all(
        len([fact for facts in GRAPH.facts_of(one.id).values() for fact in facts]) >= 12 for one in GRAPH.conditions
    )
