"Small models and tokenizers that several test files make on the spot."


def word_tokenizer(words, specials=True):
    "One token per word of `words`, which begins with [PAD], [CLS], [SEP], [UNK]."
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast
    t = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, '[UNK]'))
    t.pre_tokenizer = pre_tokenizers.Whitespace()
    if specials: t.post_processor = processors.TemplateProcessing(single='[CLS] $A [SEP]', special_tokens=[('[CLS]', 1), ('[SEP]', 2)])
    names = dict(pad_token='[PAD]', cls_token='[CLS]', sep_token='[SEP]') if specials else dict(eos_token='[SEP]')
    return PreTrainedTokenizerFast(tokenizer_object=t, unk_token='[UNK]', model_max_length=32, **names)
