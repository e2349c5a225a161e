"""Keys of a config.json that change neither what is kept of a sequence nor what weights there are.

How numbers are computed with (activations, scalings, positions), how the model was trained, how
text is generated, which token is which, and what the library writes of itself.
"""

from __future__ import annotations

LIBRARY = {
    "_name_or_path", "_attn_implementation_autoset", "_commit_hash", "architectures", "auto_map",
    "chunk_size_feed_forward", "cross_attention_hidden_size", "finetuning_task", "id2label",
    "is_decoder", "label2id", "model_type", "output_attentions", "output_hidden_states", "prefix",
    "problem_type", "return_dict", "task_specific_params", "tf_legacy_loss",
    "tokenizer_class", "torchscript", "transformers_version", "use_bfloat16", "use_cache",
}  # fmt: skip
TOKENS = {
    "bad_words_ids", "begin_suppress_tokens", "bos_token_id", "decoder_start_token_id",
    "eos_token_id", "forced_bos_token_id", "forced_eos_token_id", "pad_token_id", "sep_token_id",
    "suppress_tokens", "unk_token_id",
}  # fmt: skip
GENERATION = {
    "cache_implementation", "diversity_penalty", "do_sample", "early_stopping",
    "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "length_penalty",
    "max_length", "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams",
    "num_return_sequences", "output_scores", "remove_invalid_values", "repetition_penalty",
    "return_dict_in_generate", "temperature", "top_k", "top_p", "typical_p",
}  # fmt: skip
TRAINING = {
    "activation_dropout", "attention_dropout", "aux_loss_alpha", "dropout", "embd_pdrop",
    "hidden_dropout", "init_std", "initializer_range", "layerdrop", "output_router_logits",
    "pretraining_tp", "resid_pdrop", "router_aux_loss_coef", "router_jitter_noise", "seq_aux",
}  # fmt: skip
COMPUTING = {
    "attn_logit_softcapping", "attn_scale", "attn_temperature_tuning", "embedding_multiplier",
    "final_logit_softcapping", "floor_scale", "for_llm_compressor", "hidden_act",
    "hidden_activation", "initial_context_length", "interpolate_factor", "n_group",
    "norm_topk_prob", "num_logits_to_keep", "original_max_position_embeddings",
    "partial_rotary_factor", "rope_interleave", "rope_local_base_freq",
    "rope_scaling", "routed_scaling_factor", "scoring_func", "swiglu_alpha", "swiglu_limit",
    "topk_group", "topk_method", "use_associative_scan", "use_mamba_kernels", "use_mambapy",
    "use_mrope", "ep_size",
}  # fmt: skip
IGNORED = LIBRARY | TOKENS | GENERATION | TRAINING | COMPUTING

#: of a model that sees too, beside `text_config`; only the language model is read
VISION = {
    "boi_token_id", "boi_token_index", "eoi_token_id", "eoi_token_index", "image_token_id",
    "image_token_index", "mm_tokens_per_image", "vision_config",
}  # fmt: skip
