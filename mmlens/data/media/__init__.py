"""Pictures, videos and sounds.

- ``decoding``: opening a medium, whose unreadable kinds all raise one error
- ``containers``: whether an encoded file is there to its end
- ``pictures``, ``videos`` (``video_files`` through PyAV), ``sounds``: decoded or measured
- ``spectrogram``: sounds as pictures
- ``thumbnails``: small pictures for pages
"""
