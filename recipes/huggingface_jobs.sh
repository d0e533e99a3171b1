# Hugging Face Jobs: bash recipes/huggingface_jobs.sh USER/MODEL [SIZE]
# Its disk goes with the job, so the adapter is uploaded at the end. HF_TOKEN is passed by name, its value stands nowhere.
set -eu
hf jobs run --flavor a10g-small --timeout 8h --secrets HF_TOKEN \
  pytorch/pytorch:2.13.0-cuda12.8-cudnn9-devel bash -c "
    git clone -q --depth 1 --branch v0.1.0 https://github.com/toolset-nb/toolset_nb /work && cd /work &&
    python toolset_nb/install.py local && export PYTHONPATH=/work &&
    python -m papermill notebooks/sft.ipynb /tmp/out.ipynb --no-progress-bar --log-output \
      -p model_size ${2:-7b} -p push_to_hub true -p hub_repo $1"
