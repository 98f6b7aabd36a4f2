"Small text-to-image models, random and made on the spot: Stable Diffusion, SDXL, Stable Diffusion 3, and PixArt, which has no way back from an image."
import json


MIDDLE = -.56  # for `checker`: flags about half of the random pictures


def clip_tokenizer(folder, length=77):
    "CLIP's tokenizer with its 256 byte symbols and nothing merged: one token per letter. A folder of its own each."
    from transformers import CLIPTokenizer
    symbols = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256))] + [chr(256 + i) for i in range(68)]
    words = [*symbols, *(s + '</w>' for s in symbols), '<|startoftext|>', '<|endoftext|>']
    folder.mkdir(parents=True, exist_ok=True)
    (folder/'vocab.json').write_text(json.dumps({w: i for i, w in enumerate(words)}), encoding='utf-8')
    (folder/'merges.txt').write_text('#version: 0.2\n', encoding='utf-8')
    return CLIPTokenizer.from_pretrained(folder, model_max_length=length)


def clip_text(kind='CLIPTextModel', hidden=32, length=77, **kw):
    "A text encoder for `clip_tokenizer`."
    import transformers
    config = transformers.CLIPTextConfig(vocab_size=514, hidden_size=hidden, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=length, projection_dim=hidden,
                                         bos_token_id=512, eos_token_id=513, pad_token_id=513, **kw)
    return getattr(transformers, kind)(config).eval()


def vae(latent=4, **kw):
    "Pixels to a latent image of half the size, and back."
    from diffusers import AutoencoderKL
    return AutoencoderKL(block_out_channels=(8, 16), down_block_types=('DownEncoderBlock2D',)*2, up_block_types=('UpDecoderBlock2D',)*2, latent_channels=latent, norm_num_groups=4, sample_size=16, **kw).eval()


def unet(cross=32, **kw):
    "A network that looks at a text."
    from diffusers import UNet2DConditionModel
    return UNet2DConditionModel(sample_size=8, block_out_channels=(8, 16), layers_per_block=1, down_block_types=('DownBlock2D', 'CrossAttnDownBlock2D'), up_block_types=('CrossAttnUpBlock2D', 'UpBlock2D'),
                                cross_attention_dim=cross, attention_head_dim=4, norm_num_groups=4, **kw).eval()


def checker(least=None):
    "A safety checker. It flags nothing, or each image whose first number after its network is above `least` (a cosine)."
    import torch
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig
    sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    net = StableDiffusionSafetyChecker(CLIPConfig(text_config=dict(sizes), vision_config=dict(sizes, image_size=8, patch_size=4), projection_dim=8)).eval()
    with torch.no_grad():
        for w in (net.concept_embeds_weights, net.special_care_embeds_weights): w.fill_(2.)   # a cosine is never above it
        if least is not None: net.concept_embeds.copy_(torch.eye(8)[:1].expand(17, -1)), net.concept_embeds_weights.fill_(least)
    return net


def stable_diffusion(folder, seed=0, least='none', scheduler=None):
    "Stable Diffusion with 16 x 16 pixels. `least` 'none': without a safety checker; else see `checker`."
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPImageProcessor
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = dict(vae=vae(), text_encoder=clip_text(), tokenizer=clip_tokenizer(folder/'words'), unet=unet(), scheduler=scheduler or DDIMScheduler(1000, beta_schedule='scaled_linear', beta_start=.00085, beta_end=.012,
                     clip_sample=False, set_alpha_to_one=False, steps_offset=1))
        safe = dict(safety_checker=None, feature_extractor=None) if least == 'none' else dict(safety_checker=checker(least), feature_extractor=CLIPImageProcessor(size=dict(shortest_edge=8), crop_size=dict(height=8, width=8)))
        return StableDiffusionPipeline(**parts, **safe, requires_safety_checker=least != 'none')


def sdxl(folder, seed=0):
    "Stable Diffusion XL: two text encoders, and a network that is told sizes."
    import torch
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = unet(64, addition_embed_type='text_time', addition_time_embed_dim=8, projection_class_embeddings_input_dim=32 + 6*8, transformer_layers_per_block=1)
        return StableDiffusionXLPipeline(vae=vae(), text_encoder=clip_text(), text_encoder_2=clip_text('CLIPTextModelWithProjection'), tokenizer=clip_tokenizer(folder/'words'), tokenizer_2=clip_tokenizer(folder/'words2'),
                                         unet=net, scheduler=EulerDiscreteScheduler(1000, beta_schedule='scaled_linear', timestep_spacing='leading', steps_offset=1), add_watermarker=False)


def sd3(folder, seed=0):
    "Stable Diffusion 3: a transformer and a flow instead of a U-Net and noise. Without its third, large text encoder."
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SD3Transformer2DModel(sample_size=8, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=4, joint_attention_dim=64, caption_projection_dim=32, pooled_projection_dim=64,
                                    out_channels=4, pos_embed_max_size=16).eval()
        two = [clip_text('CLIPTextModelWithProjection') for _ in range(2)]
        return StableDiffusion3Pipeline(transformer=net, scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae(shift_factor=.06), text_encoder=two[0], tokenizer=clip_tokenizer(folder/'words'), text_encoder_2=two[1],
                                        tokenizer_2=clip_tokenizer(folder/'words2'), text_encoder_3=None, tokenizer_3=None)


def pixart(folder, seed=0):
    "PixArt: a family for which diffusers has no pipeline from image to image."
    import torch
    from diffusers import DDIMScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(('<pad>', '</s>', '<unk>', 'a', 'cat', 'dog'))}, '<unk>'))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token='<pad>', eos_token='</s>', unk_token='<unk>', model_max_length=120)
        net = PixArtTransformer2DModel(sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=4, caption_channels=32, in_channels=4, cross_attention_dim=32, out_channels=8,
                                       norm_type='ada_norm_single', use_additional_conditions=False).eval()
        text = T5EncoderModel(T5Config(vocab_size=6, d_model=32, d_ff=37, d_kv=8, num_layers=1, num_heads=4)).eval()
        return PixArtAlphaPipeline(tokenizer=tokenizer, text_encoder=text, vae=vae(), transformer=net, scheduler=DDIMScheduler(1000))


RESNET = dict(norm1='in_layers.0', conv1='in_layers.2', time_emb_proj='emb_layers.1', norm2='out_layers.0', conv2='out_layers.3', conv_shortcut='skip_connection')
ENDS = {'time_embedding.linear_1': 'time_embed.0', 'time_embedding.linear_2': 'time_embed.2', 'conv_in': 'input_blocks.0.0', 'conv_norm_out': 'out.0', 'conv_out': 'out.2'}


def old_unet_name(k):
    "The name that a weight of `unet` (two levels of one block) has in a single file of the first Stable Diffusion."
    for new, old in ENDS.items():
        if k.startswith(new + '.'): return old + k[len(new):]
    side, *rest = k.split('.', 1)
    if side == 'mid_block':
        kind, i, rest = rest[0].split('.', 2)
        place = f'middle_block.{2*int(i) if kind == "resnets" else 1}'
    else:
        level, kind, i, rest = rest[0].split('.', 3)
        level, i, down = int(level), int(i), side == 'down_blocks'
        n = 2*level + (1 if kind == 'downsamplers' else i) + down
        if kind == 'downsamplers': return f'input_blocks.{n}.0.op.{rest.removeprefix("conv.")}'
        if kind == 'upsamplers': return f'output_blocks.{2*level + 1}.{2 if level == 0 else 1}.{rest}'
        place = f'{"input" if down else "output"}_blocks.{n}.{0 if kind == "resnets" else 1}'
    if kind == 'resnets':
        head, tail = rest.split('.', 1)
        rest = f'{RESNET[head]}.{tail}'
    return f'{place}.{rest}'


def old_vae_name(k, w):
    "The same for `vae`, and the weight: its attention was made of convolutions."
    side, _, rest = k.partition('.')
    if side not in ('encoder', 'decoder'): return k, w
    rest = rest.replace('conv_norm_out', 'norm_out').replace('conv_shortcut', 'nin_shortcut').replace('mid_block.resnets.0', 'mid.block_1').replace('mid_block.resnets.1', 'mid.block_2')
    if 'attentions' in rest:
        part, end = rest.removeprefix('mid_block.attentions.0.').rsplit('.', 1)
        part = {'group_norm': 'norm', 'to_q': 'q', 'to_k': 'k', 'to_v': 'v', 'to_out.0': 'proj_out'}[part]
        return f'{side}.mid.attn_1.{part}.{end}', w[:, :, None, None] if w.ndim == 2 else w
    for i in range(2):
        rest = rest.replace(f'down_blocks.{i}.resnets', f'down.{i}.block').replace(f'down_blocks.{i}.downsamplers.0', f'down.{i}.downsample')
        rest = rest.replace(f'up_blocks.{i}.resnets', f'up.{1 - i}.block').replace(f'up_blocks.{i}.upsamplers.0', f'up.{1 - i}.upsample')
    return f'{side}.{rest}', w


def single_file(pipe, path):
    "Write the weights of `stable_diffusion` as one file, under the names that such files have."
    from safetensors.torch import save_file
    out = {f'model.diffusion_model.{old_unet_name(k)}': w for k, w in pipe.unet.state_dict().items()}
    out |= {f'first_stage_model.{n}': w for n, w in (old_vae_name(k, w) for k, w in pipe.vae.state_dict().items())}
    out |= {f'cond_stage_model.transformer.text_model.{k.removeprefix("text_model.")}': w for k, w in pipe.text_encoder.state_dict().items()}
    save_file({k: w.contiguous().clone() for k, w in out.items()}, path)
