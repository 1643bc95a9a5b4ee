"""Settings that every run shares; with them a config also works in MMSegmentation's tools."""

default_scope = 'mmseg'
custom_imports = dict(imports=['mmseg_ext'], allow_failed_imports=False)
runner_type = 'ResumableRunner'
randomness = dict(seed=0)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
default_hooks = dict(
    runtime_info=dict(type='DeferredRuntimeInfoHook'),
    logger=dict(type='EarlyLoggerHook', interval=50, log_metric_by_epoch=False),
    checkpoint=dict(type='AtomicCheckpointHook', max_keep_ckpts=2, save_best='mIoU'),
    visualization=dict(type='SegVisualizationHook'),
)
custom_hooks = [dict(type='ValidationLossHook'), dict(type='CurvesHook'), dict(type='PicturesHook')]
log_processor = dict(
    by_epoch=False,  # the host would log the mean of the last ten validations
    custom_cfg=[dict(data_src='val_loss', method_name='mean', window_size=1)],
)
log_level = 'INFO'
visualizer = dict(
    type='SegmentsVisualizer', name='visualizer', vis_backends=[dict(type='LocalVisBackend')]
)
load_from = None
resume = False
