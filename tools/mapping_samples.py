"""What generate_mappings.py instantiates classes with where the default config is not a working model or not the only one."""

ROPE = {"rope_type": "default", "rope_theta": 1e4}
COMPASS = {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}}
DETR = "ConditionalDetrConfig DabDetrConfig DeformableDetrConfig DetrConfig TableTransformerConfig"
DECODER = {"model_type": "bert", "is_decoder": True, "add_cross_attention": True}
INDEXER = dict(indexer_n_heads=4, indexer_kv_heads=1, indexer_head_dim=256, indexer_budget=64, indexer_compress_ratio=16)
INTRACLASS = ["reduce_channel", "return_channel"] + [
    f"{direction}_{ratio}ratio" for ratio in ("long", "mid", "short") for direction in (
        "vertical_long_to_small_conv", "horizontal_small_to_long_conv", "symmetric_conv_long")]
MUSICGEN = {"text_encoder": {"model_type": "t5"}, "audio_encoder": {"model_type": "encodec"}}
REPVIT = {"model_type": "timm_wrapper", "architecture": "repvit_m1"}

# Classes or config classes, and what their default config lacks. Sections that a default leaves empty are filled as well.
SAMPLES = {name: values for names, values in (
    ("AutoformerConfig InformerConfig TimeSeriesTransformerConfig", {"prediction_length": 24}),
    ("AyaVisionConfig", {"vision_config": {"num_attention_heads": 16}}),
    ("BeitForSemanticSegmentation", {
        "out_indices": [3, 5, 7, 11], "out_features": ["stage3", "stage5", "stage7", "stage11"]}),
    ("ChameleonConfig Emu3Config", {"vocabulary_map": {"<image>": 1, "<|extra_200|>": 2}}),
    ("CohereCompassConfig", {"text_config": COMPASS}),
    ("CohereCompassTextConfig", COMPASS),
    (DETR, {"backbone_config": {"model_type": "resnet", "out_indices": [1, 2, 3, 4]}}),
    ("DbrxConfig", {"attn_config": {"rope_theta": 1e4}}),
    ("DeepseekOcr2Config", {"text_config": {"mlp_layer_types": ["sparse"] * 64}}),
    ("DepthProConfig", {"use_fov_model": True}),
    ("DiffusionGemmaConfig", {"vision_config": {"model_type": "gemma4_vision"}, "text_config": {
        "num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 64}}),
    ("Dots1Config", {"n_routed_experts": 8, "n_shared_experts": 1}),
    ("EdgeTamVisionConfig", {"backbone_config": REPVIT}),
    ("EncoderDecoderConfig", {"encoder": {"model_type": "bert"}, "decoder": DECODER}),
    ("EsmConfig", {"vocab_size": 33, "pad_token_id": 1}),
    ("Gemma4AssistantConfig", {"text_config": {
        "model_type": "gemma4_text", "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}}),
    ("Gemma4Config", {"vision_config": {"model_type": "gemma4_vision"}, "audio_config": {"model_type": "gemma4_audio"}}),
    ("Gemma4UnifiedAssistantConfig", {"text_config": {"model_type": "gemma4_unified_text"}}),
    ("Granite4VisionConfig", {"text_config": {"model_type": "granite4_vision_text"}, "deepstack_layer_map": [[0, 0]],
                              "downsample_rate": "4/8"}),
    ("HieraForPreTraining", {"decoder_hidden_size": 512, "decoder_num_heads": 8, "decoder_depth": 1}),
    ("HunYuanDenseV1Config HunYuanMoEV1Config HunYuanVLTextConfig MinistralConfig", {"head_dim": 128}),
    ("HunYuanVLConfig", {"text_config": {"head_dim": 128}}),
    ("Idefics3Config SmolVLMConfig", {"pad_token_id": 0, "text_config": {"pad_token_id": 0}}),
    ("Lfm2MoeConfig", {"layer_types": ["full_attention"] * 32}),
    ("MoonshineStreamingConfig NemotronConfig", {"num_key_value_heads": 8}),
    ("MusicgenConfig", MUSICGEN | {"decoder": {"model_type": "musicgen_decoder"}}),
    ("MusicgenMelodyConfig", MUSICGEN | {"decoder": {"model_type": "musicgen_melody_decoder"}}),
    ("PerceiverForImageClassificationConvProcessing PerceiverForImageClassificationFourier",
     {"num_cross_attention_heads": 1}),
    ("PerceptionLMConfig", {"vision_config": REPVIT | {"model_args": {"embed_dim": 1024}}}),
    ("PPOCRV5ServerDetConfig PPOCRV6MediumDetConfig", {
        "intraclass_block_config": dict.fromkeys(INTRACLASS, [1, 1, 0]), "scale_factor_list": [1, 2, 4, 8],
        "kernel_list": [3, 2, 2]}),
    ("Qwen3OmniMoeConfig", {"talker_config": {"spatial_merge_size": 2, "text_config": {"shared_expert_intermediate_size": 8}}}),
    ("Qwen4ExpConfig", {"text_config": INDEXER}),
    ("Qwen4ExpTextConfig", INDEXER),
    ("ReformerModelWithLMHead", {"is_decoder": True}),
    ("Sapiens2Config", {"head_config": {
        "model_type": "sapiens2_head", "upsample_out_channels": [64], "conv_out_channels": [64]}}),
    ("SpeechEncoderDecoderConfig", {"encoder": {"model_type": "wav2vec2"}, "decoder": DECODER}),
    ("T5Gemma2EncoderConfig", {"text_config": {"dropout_rate": 0.0}}),
    ("T5GemmaEncoderModel", {"is_encoder_decoder": False}),
    ("TimmBackboneConfig", {"backbone": "resnet50"}),
    ("VisionEncoderDecoderConfig", {
        "encoder": {"model_type": "vit"}, "decoder": {"model_type": "gpt2", "add_cross_attention": True}}),
    ("VisionTextDualEncoderConfig", {"vision_config": {"model_type": "vit"}, "text_config": {"model_type": "bert"}}),
    ("Wav2Vec2BertForCTC Wav2Vec2ConformerForCTC", {"vocab_size": 32}),
) for name in names.split()}

# Likewise, changes to the sample that add, drop or exchange sub-models. The first key becomes the recorded condition.
VARIANTS = {name: values for names, *values in (
    ("Blip2Config InstructBlipConfig InstructBlipVideoConfig",
     {"text_config": {"model_type": "t5"}, "use_decoder_only_language_model": False}),
    ("BltConfig", {"patch_in_forward": False}),
    (DETR, {"backbone_config": {"model_type": "timm_backbone", "backbone": "resnet50", "out_indices": [1, 2, 3, 4]}}),
    ("DepthProConfig", {"use_fov_model": False}),
    ("DPTForDepthEstimation DPTForSemanticSegmentation", {"backbone_config": {
        "model_type": "dinov2", "out_indices": [3, 6, 9, 12], "reshape_hidden_states": False}}),
    ("FlavaConfig", {"init_codebook": False}),
    ("Gemma4Config", {"vision_config": None}, {"audio_config": None}),
    ("Qwen2_5OmniConfig Qwen3OmniMoeConfig", {"enable_audio_output": False}),
    ("T5GemmaForSequenceClassification T5GemmaForTokenClassification", {"is_encoder_decoder": False}),
) for name in names.split()}
