"""The options of each parameter are in the log file alone."""

import logging

from mmengine.logging import MMLogger

from mmseg_ext.engine.optimizers import options_only_in_the_file


def test_options_of_parameters_are_not_printed(tmp_path, capsys):
    file = tmp_path / 'log'
    logger = MMLogger('options', log_file=str(file))
    logger.setLevel(logging.INFO)
    with options_only_in_the_file(logger):
        logger.info('paramwise_options -- a.weight:lr=0.1')
        logger.info('another')
    logger.info('paramwise_options -- later')
    printed = ''.join(capsys.readouterr())
    assert 'a.weight' not in printed and 'another' in printed and 'later' in printed
    assert 'a.weight' in file.read_text() and 'another' in file.read_text()
