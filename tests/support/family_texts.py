"""What the tiny families read and how they format a conversation: a training text and their chat templates."""

CORPUS = """
<think> site : trunk . colour : brown . border : sharp . </think> <answer> melanocytic nevus </answer>
You are a dermatologist. Look at the image and reason in this order: site and distribution, morphology,
colour, border and surface, differential, diagnosis. Write your reasoning between <think> and </think>,
then the name of exactly one condition between <answer> and </answer>. What is the diagnosis?
A melanoma is an asymmetric pigmented macule or papule with an irregular border, several colours and a
diameter that grows. A melanocytic nevus is a symmetric brown macule with a sharp border. A seborrhoeic
keratosis is a stuck-on plaque with a waxy surface, milia-like cysts and comedo-like openings. A basal cell
carcinoma is a pearly nodule with arborising vessels and a rolled border, often ulcerated, on the face. An
actinic keratosis is a rough scaly macule on skin that the sun has damaged. A dermatofibroma is a firm
papule of the lower leg with a central white patch and a peripheral pigment network. A vascular lesion is a
red or purple papule with lacunae. Psoriasis shows well demarcated red plaques with silvery scale on elbows,
knees, scalp and trunk. Atopic dermatitis shows itchy ill-defined erythema with lichenification in the
flexures. Tinea corporis is an annular scaly plaque with central clearing. Rosacea brings flushing, papules
and pustules to the cheeks and nose. Vitiligo shows depigmented patches. Urticaria shows wheals that fade
within a day. The distribution is localised, scattered, linear, acral or symmetric. The surface is smooth,
scaly, crusted, ulcerated or verrucous. The colour is brown, black, blue, red, pink, white, tan or yellow.
"""

# The turn formats of the released models. Qwen and Gemma take a turn's parts in their order; LLaVA puts the
# images first. Each closes the assistant's turn, which supervised training needs.
QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% set system = namespace(text='') %}"
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{% if message['content'] is string %}{% set system.text = message['content'] + '\n\n' %}"
    "{% else %}{% set system.text = message['content'][0]['text'] + '\n\n' %}{% endif %}"
    "{% else %}<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ system.text }}{% set system.text = '' %}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<start_of_image>"
    "{% elif part['type'] == 'text' %}{{ part['text'] | trim }}{% endif %}{% endfor %}{% endif %}"
    "<end_of_turn>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
IDEFICS_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}:"
    "{% if message['content'] is string %}{{ ' ' + message['content'] }}{% else %}"
    "{% if message['content'][0]['type'] != 'image' %}{{ ' ' }}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
LLAVA_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'] | upper }}: {% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{% if message['role'] == 'assistant' %}</s>{% else %} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
# In the manner of Qwen's thinking models: the prompt opens the reasoning, and of a conversation the last reply keeps
# its own, split off at its end and written anew.
THINKING_TEMPLATE = (
    "{% for message in messages %}{% set said = namespace(text='', thought='') %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "{% set said.text = said.text + '<|vision_start|><|image_pad|><|vision_end|>' %}"
    "{% else %}{% set said.text = said.text + part['text'] %}{% endif %}{% endfor %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% if '</think>' in said.text %}"
    "{% set said.thought = said.text.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set said.text = said.text.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if loop.last %}{{ '<think>\n' + said.thought + '\n</think>\n\n' }}{% endif %}{% endif %}"
    "{{ said.text }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
# The same told not to think: the prompt opens the reasoning and closes it.
UNTHINKING_TEMPLATE = THINKING_TEMPLATE.replace("assistant\n<think>\n'", "assistant\n<think>\n\n</think>\n\n'")
