import torch, pytest
from vqcore import *
def test_all(data_set):
    import vqcore.training as t
    m = VQVAE(ModelConfig())
    o = m(torch.randn(2,3,16,16))
    print(o.reconstruction.shape, m.decode(m.encode(torch.randn(2,3,16,16))).shape)
    q=QuantizerConfig(commitment_weight=1); 
    tr=t.Trainer(TrialConfig())
    im=t.Images(data_set.train(),"cpu" and torch.device("cpu"))
    print(tr.train_epoch(im), tr.evaluate(im)); tr.reconstruct(im,8); tr.load_state(tr.state())
    for f in (lambda: ModelConfig(channels="x"), lambda: QuantizerConfig(codebook_size=True), lambda: TrialConfig.from_flat({"beta":None}), lambda: QuantizerConfig(estimator=["x"])):
        try: f()
        except Exception as e: print(type(e), str(e)[:300])
